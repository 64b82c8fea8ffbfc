"""Log records about tasks and workers have their ids as fields, for formatters that write JSON."""

from __future__ import annotations

import ast
import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import BaseModel
from pythonjsonlogger.json import JsonFormatter

import zndraw_joblib
from zndraw_joblib.api.paths import log_fields
from zndraw_joblib.client.execution import execute_task
from zndraw_joblib.client.tasks import ClaimedTask

PACKAGE = Path(zndraw_joblib.__file__).parent
LEVELS = {"debug", "info", "warning", "error", "critical", "exception", "log"}

#: Beginnings of messages that are about no task, worker, job or room, or whose record is of many.
WITHOUT_FIELDS = {
    # The channel layer and the event loop: groups and batches.
    "too many unsent messages",
    "no event loop to send",
    "some messages were not sent",
    "could not send %s to %s",
    "the channel layer failed",
    "could not read for",
    "could not read the changes in",
    # The sweeper and the metrics: all tasks of a database.
    "could not sweep for the tenant",
    "corrected %d leases",
    "sweep %s",
    "sweep failed",
    "could not keep the statistics",
    "could not read the database for metrics",
    # The task of a file to delete is gone.
    "the storage failed to delete",
    # The SDK's classes and connections.
    "results of %s stay JSON",
    "the function that returns the token failed",
    "could not %s: %s; trying again",
    "could %s again",
}


#: Django's record of a request for another host, which the lane writes too.
HOSTS_ERROR = "%s"


def log_calls(source: str) -> Iterator[tuple[str, ast.Call]]:
    """The calls of loggers in a module, each with its message."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = ast.unparse(node.func.value)
            if node.func.attr in LEVELS and owner.startswith(("logger", "logging.getLogger")):
                texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
                yield next((text for text in texts if isinstance(text, str)), ""), node


def without_fields(source: str) -> list[str]:
    """The messages of the calls that need fields and have none."""
    return [
        message
        for message, call in log_calls(source)
        if not any(keyword.arg == "extra" for keyword in call.keywords)
        and not message.startswith(tuple(WITHOUT_FIELDS))
        and message != HOSTS_ERROR
    ]


def test_each_record_about_a_task_or_worker_has_fields():
    files = sorted(PACKAGE.rglob("*.py"))
    found = {str(file): without_fields(file.read_text()) for file in files}
    assert {name: messages for name, messages in found.items() if messages} == {}
    # Control: the calls are found at all, and each exception is still needed.
    messages = [message for file in files for message, _ in log_calls(file.read_text())]
    assert len(messages) > 40
    unused = {one for one in WITHOUT_FIELDS if not any(m.startswith(one) for m in messages)}
    assert unused == set()


def test_a_record_without_fields_is_noticed():
    """Control of the test above."""
    assert without_fields('logger.info("task %s is gone", task.id)') == ["task %s is gone"]
    assert without_fields('logger.log(level, "worker %s", one)') == ["worker %s"]
    assert without_fields('logger.info("task %s", task.id, extra=task.log_fields())') == []


#: The fields that a record may have; never a payload, a result or a token.
FIELDS = {"task_id", "task_ids", "attempt", "worker_id", "job", "job_id", "room", "status"}


def test_the_fields_are_ids_only():
    for file in PACKAGE.rglob("*.py"):
        for _, call in log_calls(file.read_text()):
            for keyword in call.keywords:
                if keyword.arg == "extra" and isinstance(keyword.value, ast.Dict):
                    names = {
                        key.value for key in keyword.value.keys if isinstance(key, ast.Constant)
                    }
                    assert names <= FIELDS, (file, names)


class Rotate(BaseModel):
    """A job."""

    angle: float = 0


TASK = ClaimedTask(
    id="0199",
    job_name="open:modifiers:Rotate",
    room_id="open",
    payload={"angle": 12345},
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    attempt=2,
    worker_id="w",
)
IDS = {
    "task_id": "0199",
    "attempt": 2,
    "job": "open:modifiers:Rotate",
    "room": "open",
    "worker_id": "w",
}


@pytest.fixture
def lines():
    """A function that returns the records of the package so far, as JSON."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter("{levelname}{name}{message}", style="{"))
    logger = logging.getLogger("zndraw_joblib")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logger.setLevel(level)
    logger.removeHandler(handler)


def test_the_record_of_a_failed_task_has_its_ids_and_no_payload(lines):
    def fail(task, instance):
        raise ValueError("no")

    execute_task(TASK, Rotate, fail)
    (line,) = lines()
    assert IDS.items() <= line.items()
    assert line["name"] == "zndraw_joblib.client.execution"
    assert "12345" not in json.dumps(line)


def test_the_logger_of_a_task_adds_its_ids(lines):
    TASK.logger.info("angle %d", 30)
    (line,) = lines()
    assert line == {"levelname": "INFO", "name": "zndraw_joblib.task", "message": "angle 30", **IDS}


def test_the_fields_of_a_request_come_from_its_path():
    variables = {"room_id": "open", "full_name": "open:a:B", "name": "x", "task_id": "t"}
    assert log_fields(variables) == {"room": "open", "job": "open:a:B", "task_id": "t"}
