"""Links of the documentation to other sites, without a network, and the site of `make docs`.

`make docs` checks the links within the documentation, because it is strict.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from docs_hooks import asyncapi, problems, resolved
from tests.packaging.code_blocks import PAGES, ROOT
from zndraw_joblib.exceptions import PROBLEM_TYPES

FENCED = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((https?:[^)\s]*)\)|<(https?:[^>\s]*)>|href=\"(https?:[^\"]*)\"")
LINKING = sorted({*PAGES, *ROOT.glob("*.md")})
#: Sites that the documentation links to. A new one is added here by hand, after a look at it.
SITES = {
    "www.w3.org",
    "codingjoe.dev",
    "django-rest-framework-simplejwt.readthedocs.io",
    "docs.celeryq.dev",
    "docs.djangoproject.com",
    "docs.hatchet.run",
    "docs.taskcluster.net",
    "github.com",
    "keepachangelog.com",
    "procrastinate.readthedocs.io",
    "pypi.org",
    "semver.org",
    "www.asyncapi.com",
    "www.python-httpx.org",
    "www.rfc-editor.org",
}


def links(text: str) -> list[str]:
    """Addresses that a text in Markdown links to, outside of code."""
    return ["".join(found) for found in LINK.findall(FENCED.sub("", text))]


def wrong_links(text: str) -> list[str]:
    """Links that are not HTTPS, lead to an unknown site, or contain a stray character."""
    return [
        link
        for link in links(text)
        if urlsplit(link).scheme != "https"
        or urlsplit(link).hostname not in SITES
        or not re.fullmatch(r"[\w:/.#?=&%~+@-]+", link)
    ]


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_other_sites_are_well_formed_and_known(page):
    assert wrong_links(page.read_text()) == []


def test_every_known_site_is_linked_to():
    text = "\n".join(page.read_text() for page in LINKING)
    assert {site for site in SITES if site not in text} == set()


def test_wrong_links_are_noticed():
    """Control of the tests above."""
    text = (
        "[a](http://github.com/a), [b](https://github.con/b), [c](https://github.com/«c»), "
        "`[d](http://in.code)` and [e](https://github.com/e)"
    )
    assert len(wrong_links(text)) == 3


def test_the_table_of_problems_has_every_type():
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (\d+) \|", problems(), re.MULTILINE))
    assert rows == {slug: str(problem.status) for slug, problem in PROBLEM_TYPES.items()}


def test_the_page_of_events_shows_the_document(tmp_path, monkeypatch):
    monkeypatch.setattr("docs_hooks.DOCS", tmp_path)
    document = {
        "info": {"description": "About."},
        "channels": {
            "events": {
                "address": "ws/rooms/{room_id}/events/",
                "parameters": {"room_id": {"description": "A room\n| of the site."}},
                "messages": {
                    "ready": {"$ref": "#/components/messages/a~1b"},
                    "task": {"payload": {"$ref": "#/components/schemas/Task"}},
                },
                "bindings": {"ws": {"query": {"properties": {"cursor": {"type": "string"}}}}},
            }
        },
        "components": {
            "messages": {"a/b": {"title": "Ready", "payload": {"type": "object"}}},
            "schemas": {"Task": {"type": "array"}},
        },
    }
    (tmp_path / "asyncapi.yml").write_text(json.dumps(document))
    made = asyncapi()
    for text in (
        "## events",
        "`ws/rooms/{room_id}/events/`",
        "| `room_id` | A room \\| of the site. |",
        "### Ready",
        '"type": "object"',
        "| `?cursor=` |",
        "Schema: [Task](#schema-task)",
        "### Task {#schema-task}",
    ):
        assert text in made, text
    assert resolved(document, {"$ref": "#/info"}) == {"description": "About."}


@pytest.mark.slow
def test_the_site_is_built_strictly_and_needs_no_other_site(tmp_path):
    """Control: with `theme.font` each page loads a font from Google."""
    mkdocs = Path(sys.executable).with_name("mkdocs")
    built = subprocess.run(
        [mkdocs, "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    loaded = re.compile(
        r"<(?:script|img|iframe|link rel=\"stylesheet\")[^>]+(?:src|href)=\"http[^>]*>"
    )
    for page in tmp_path.rglob("*.html"):
        assert not loaded.search(page.read_text()), page
    client = (tmp_path / "reference/python/client.html").read_text()
    for name in (
        "JobManager",
        "TaskHandle",
        "ClaimedTask",
        "JobManager.register",
        "TaskHandle.watch",
    ):
        assert f'id="zndraw_joblib.client.{name}"' in client, name
    host = (tmp_path / "reference/python/host.html").read_text()
    assert 'id="zndraw_joblib.host.submitting.submit"' in host
    assert "job-not-found" in (tmp_path / "reference/problems.html").read_text()
    assert "swagger" in (tmp_path / "reference/rest.html").read_text()
