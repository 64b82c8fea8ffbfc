"""The texts that the server gives to the modules of the room page."""

from __future__ import annotations

import re
from pathlib import Path

import zndraw_joblib
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.pages.task_texts import TASK_TEXTS

MODULES = Path(zndraw_joblib.__file__).parent / "static" / "zndraw_joblib" / "pages"
#: Beginnings of keys that a module completes by a value of the API.
COMPLETED = ("status_", "outcome_", "fact_")


def test_each_text_of_tasks_is_used_by_a_module():
    code = "\n".join(path.read_text() for path in MODULES.glob("*.js"))
    quoted = set(re.findall(r'"([a-z_]+)"', code)) | set(re.findall(r"\b([a-z_]+): ", code))
    bases = {re.sub(r"_(one|other)$", "", key).removeprefix("fact_") for key in TASK_TEXTS}
    assert {base for base in bases - quoted if not base.startswith(COMPLETED)} == set()


def test_each_plural_has_both_forms():
    forms = {key for key in TASK_TEXTS if key.endswith(("_one", "_other"))}
    bases = {key.rpartition("_")[0] for key in forms}
    assert forms == {f"{base}_{form}" for base in bases for form in ("one", "other")}


def test_each_status_and_outcome_has_a_word():
    outcomes = {"completed", "failed", "cancelled", "lost", "requeued"}
    for key in [f"status_{status}" for status in TaskStatus] + [f"outcome_{o}" for o in outcomes]:
        assert key in TASK_TEXTS
