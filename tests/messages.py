"""The messages of the source code that a catalogue has to translate."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from zndraw_joblib.exceptions import PROBLEM_TYPES
from zndraw_joblib.translation import LIBRARY_TEMPLATES

PACKAGE = Path(__file__).parents[1] / "zndraw_joblib"
_MARKS = {"Message", "_", "gettext", "gettext_lazy"}
_TAG = re.compile(r"""\{%\s*translate\s+(['"])(.*?)\1""")
_BLOCK = re.compile(r"\{%\s*blocktranslate[^%]*%\}(.*?)\{%\s*endblocktranslate\s*%\}", re.DOTALL)


def sources() -> Iterator[tuple[Path, ast.AST]]:
    """The server's modules, parsed."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if not {"client", "migrations"} & set(path.relative_to(PACKAGE).parts):
            yield path, ast.parse(path.read_text())


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Each call with the last part of the name that is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield getattr(node.func, "id", getattr(node.func, "attr", "")), node


def in_code() -> Iterator[str]:
    """Literals that `Message` or gettext gets."""
    for _path, tree in sources():
        for name, call in calls(tree):
            texts = [each.value for each in call.args if isinstance(each, ast.Constant)]
            if name in _MARKS and texts:
                yield str(texts[0])
            elif name == "ngettext":
                yield from map(str, texts[:2])


def in_templates() -> Iterator[str]:
    """Literals of Django's tags."""
    for path in PACKAGE.glob("templates/**/*.html"):
        text = path.read_text()
        yield from (match[2] for match in _TAG.finditer(text))
        for match in _BLOCK.finditer(text):
            yield re.sub(r"\{\{\s*(\w+)\s*\}\}", r"%(\1)s", match[1])


def all_messages() -> set[str]:
    """Every message that German needs; texts of placeholders alone need none."""
    titles = {text for each in PROBLEM_TYPES.values() for text in (each.title, each.description())}
    found = {*in_code(), *in_templates(), *LIBRARY_TEMPLATES, *titles}
    return {text for text in found if re.search(r"\w", re.sub(r"\{\w+\}", "", text))}
