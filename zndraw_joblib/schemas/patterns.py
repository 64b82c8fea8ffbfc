"""Regular expressions of people who are not trusted: linear in time, and bounded in size.

The engine is pydantic's, Rust's `regex`, which has no look-around and no back-references. Linear
is not yet cheap: counted repeats multiply, so what a pattern costs is estimated from its text
before the engine sees it.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import NamedTuple

from pydantic_core import SchemaError, SchemaValidator, core_schema

#: Size of a pattern at most: about 20 ms and 5 MB to compile, so 64 repeats of `\w` fit.
MAX_SIZE = 50_000
#: Size of all compiled patterns that a process keeps, about 100 MB.
MAX_KEPT = 1_000_000
#: Width up to which the engine has few states, so that it takes the same time for any pattern.
NARROW = 12
#: Size of what the engine writes down while it runs, added to that of the pattern.
_NOTES, _WIDE_NOTES = 2_000, 20_000

# Sizes in units of a plain character; compiling takes about half a microsecond for each.
_CLASSES = {
    **dict.fromkeys("wWpP", 700),
    **dict.fromkeys("dD", 120),
    **dict.fromkeys("sSbB<>", 20),
}
#: Of a boundary of words: beside characters beyond ASCII, the engine takes its slow way.
_BOUNDARY_WIDTH = 20
_HEX = {"x": 2, "u": 4, "U": 8}
_WIDE = 12
_COUNT = re.compile(r"\{\s*(\d{0,9})\s*(,?)\s*(\d{0,9})\s*\}")
_BRACES = re.compile(r"\{[^{}]*\}")
_BOUNDARY = re.compile(r"\{[a-z-]+\}")
_GROUP = re.compile(r"\?(?:P?<\w+>|(?P<flags>[a-zA-Z-]*)(?P<end>[:)]))")

# What pydantic writes for a Decimal: neither signs and dots alone (a look-ahead), nor more digits
# than it has. Where it counts all digits, its pattern takes anything else.
_DECIMAL = re.compile(
    r"\^\(\?!\^\[-\+\.\]\*\$\)\[\+-\]\?0\*(?:"
    r"(?P<rest>\\d\*\\\.\?\\d(?:\*|\{0,\d+\}0\*)\$)"
    r"|\(\?:\\d\{0,\d+\}\|\(\?=\[\\d\.\]\{1,\d+\}0\*\$\)"
    r"\\d(?:\*|\{0,\d+\})\\\.\\d(?:\*|\{0,\d+\})0\*\$\)"
    r")"
)

#: Is told of work, in tenths of a microsecond, before it is done; refuses by an exception.
Charge = Callable[[int], None]


class PatternError(ValueError):
    """The pattern is not accepted; says why, as the end of a sentence about it."""


class Pattern(NamedTuple):
    """A pattern that was measured, not compiled."""

    source: str
    #: What it takes to compile, and to keep.
    size: int
    #: What it takes to look at one character.
    width: int
    #: Of a Decimal: never signs and dots alone.
    decimal: bool = False

    @property
    def kept(self) -> int:
        """What it takes to keep it compiled."""
        return self.size + (_NOTES if self.width <= NARROW else _WIDE_NOTES)


class Matcher:
    """Patterns in use for one payload: each is compiled once at most, and charged for."""

    __slots__ = ("_charge", "_engines")

    def __init__(self, charge: Charge) -> None:
        self._charge = charge
        self._engines: dict[str, SchemaValidator] = {}

    def matches(self, pattern: Pattern, text: str) -> bool:
        """Whether the pattern is found in the text; what that takes is charged before."""
        narrow = 3 if text.isascii() else 10
        nanoseconds = narrow if pattern.width <= NARROW else 20 * pattern.width
        self._charge(12 + len(text) * nanoseconds // 100)
        if pattern.decimal and not text.strip("-+."):
            return False
        engine = self._engines.get(pattern.source)
        if engine is None:
            # The same for a pattern that is kept, so that nobody's answer depends on others.
            self._charge(1500 + pattern.size * 5)
            engine = self._engines[pattern.source] = _engines.get(pattern)
        return engine.isinstance_python(text)


def measured(source: str) -> Pattern:
    """The pattern with its cost.

    Raises
    ------
    PatternError
        It is too large, or not written as the engine reads.
    """
    decimal = _DECIMAL.fullmatch(source)
    text = source if decimal is None else r"^[+-]?0*" + (decimal["rest"] or "")
    size, width = _Measure(text).result()
    if size > MAX_SIZE:
        raise PatternError("is too large, repeats counted")
    return Pattern(text, size, width, decimal is not None)


def compile_pattern(pattern: Pattern) -> None:
    """See to it that the engine takes the pattern, which is kept for a `Matcher`.

    Raises
    ------
    PatternError
        It does not.
    """
    _engines.get(pattern)


class _Engines:
    """The compiled patterns that were used last, bounded by the sum of their sizes."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Pattern, SchemaValidator] = OrderedDict()
        self._size = 0
        self._lock = Lock()

    def get(self, pattern: Pattern) -> SchemaValidator:
        with self._lock:
            if kept := self._kept.get(pattern):
                self._kept.move_to_end(pattern)
                return kept
        try:
            engine = SchemaValidator(core_schema.str_schema(pattern=pattern.source))
        except SchemaError as error:
            reason = str(error).rpartition("error: ")[2][:200]
            raise PatternError(f"is refused: {reason}") from error
        with self._lock:
            if pattern not in self._kept:
                self._kept[pattern] = engine
                self._size += pattern.kept
            while self._size > MAX_KEPT:
                self._size -= self._kept.popitem(last=False)[0].kept
        return engine


_engines = _Engines()


class _Measure:
    """One reading of a pattern, never below what the engine makes of it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._fold = 1

    def result(self) -> tuple[int, int]:
        """Size and width of the whole."""
        # Of each open group: what it holds so far, and the last thing in it, which may be repeated.
        total, last = (0, 0), (0, 0)
        outer: list[tuple[tuple[int, int], tuple[int, int]]] = []
        while self._at < len(self._text):
            char = self._text[self._at]
            self._at += 1
            if char == "(":
                outer.append((total, last))
                total, last = (2, 1), (0, 0)
                if self._flags():
                    total, last = outer.pop()
            elif char == ")":
                inner = _sum(total, last)
                if not outer:
                    raise PatternError("has a parenthesis too many")
                total, last = outer.pop()
                total, last = _sum(total, last), inner
            elif char == "{":
                last = _times(last, self._count())
            elif char in "*+?":
                last = _times(last, 1)
            else:
                total, last = _sum(total, last), self._atom(char)
            if total[0] + last[0] > MAX_SIZE:
                break
        size, width = _sum(total, last)
        for held in outer:
            size, width = size + sum(h[0] for h in held), width + sum(h[1] for h in held)
        return size * self._fold, width * min(self._fold, 4)

    def _flags(self) -> bool:
        """Read on after "(" what makes it a special group; whether it is flags alone."""
        if not self._text.startswith("?", self._at):
            return False
        match = _GROUP.match(self._text, self._at)
        if match is None:
            raise PatternError("is refused: look-around is not supported")
        self._at = match.end()
        flags = match["flags"] or ""
        if "x" in flags:
            raise PatternError("must do without the flag x")
        if "i" in flags:
            self._fold = 6
        return match["end"] == ")"

    def _count(self) -> int:
        match = _COUNT.match(self._text, self._at - 1)
        if match is None:
            raise PatternError("has a repeat that is no number or too large")
        self._at = match.end()
        return max(int(match[1] or 0) + bool(match[2]), int(match[3] or 0), 1)

    def _atom(self, char: str) -> tuple[int, int]:
        if char == "[":
            return self._set()
        if char == "\\":
            return self._escape()
        if char == ".":
            return _WIDE, 4
        return (1, 1) if char.isascii() else (_WIDE, 4)

    def _escape(self) -> tuple[int, int]:
        char = self._text[self._at : self._at + 1]
        self._at += 1
        if char in _HEX:
            braces = _BRACES.match(self._text, self._at)
            self._at = braces.end() if braces else self._at + _HEX[char]
            return _WIDE, 4
        if char in ("p", "P"):
            braces = _BRACES.match(self._text, self._at)
            self._at = braces.end() if braces else self._at + 1
        elif char in ("b", "B", "<", ">"):
            boundary = _BOUNDARY.match(self._text, self._at)
            self._at = boundary.end() if boundary else self._at
            return _CLASSES[char], _BOUNDARY_WIDTH
        size = _CLASSES.get(char, 1)
        return size, 1 if size == 1 else 8

    def _set(self) -> tuple[int, int]:
        size, wide, depth = 2, self._open_set(), 1
        while depth:
            char = self._text[self._at : self._at + 1]
            self._at += 1
            if not char:
                raise PatternError("has a class that does not end")
            if char == "]":
                depth -= 1
            elif char == "[":
                depth += 1
                wide |= self._open_set()
            else:
                item = self._atom(char)[0]
                size += item
                wide |= item >= _WIDE
        return (size + _WIDE, 8) if wide else (size, 1)

    def _open_set(self) -> bool:
        """Read on after "[": what follows at once is no end; whether it is a negation."""
        negated = self._text.startswith("^", self._at)
        self._at += negated
        self._at += self._text.startswith("]", self._at)
        return negated


def _sum(one: tuple[int, int], two: tuple[int, int]) -> tuple[int, int]:
    return one[0] + two[0], one[1] + two[1]


def _times(one: tuple[int, int], count: int) -> tuple[int, int]:
    return one[0] * count, one[1] * count
