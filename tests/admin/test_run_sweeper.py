"""`manage.py run_sweeper` in the process of a host: its log lines and its handlers of signals."""

from __future__ import annotations

import io
import logging
import signal

import pytest
from django.core.management import call_command

pytestmark = pytest.mark.django_db(transaction=True)

NAME = "zndraw_joblib.management.commands.run_sweeper"


@pytest.fixture
def bare_logging(monkeypatch):
    """A function that removes handlers and levels, as in a host that configures no logging.

    A function, because pytest adds handlers of its own between fixtures and the test.
    """

    def clear():
        loggers = [logging.getLogger(name) for name in (None, "zndraw_joblib", NAME)]
        for each in loggers:
            monkeypatch.setattr(each, "handlers", [])
            levels.append((each, each.level))
            each.setLevel(logging.NOTSET if each.parent else logging.WARNING)
        return loggers

    levels: list[tuple[logging.Logger, int]] = []
    yield clear
    for each, level in reversed(levels):
        each.setLevel(level)


def lines_of(host, handled_by=None, level=logging.NOTSET):
    """The lines of one sweep: in the host's log, and on the command's own stderr."""
    own, stderr = io.StringIO(), io.StringIO()
    if handled_by is not None:
        handled_by.addHandler(logging.StreamHandler(own))
    host.setLevel(level or host.level)
    call_command("run_sweeper", once=True, stderr=stderr)
    return own.getvalue().count("sweep "), stderr.getvalue().count("sweep ")


@pytest.mark.parametrize("which", [0, 1, 2], ids=["root", "app", "command"])
def test_a_host_with_a_handler_gets_each_line_once(bare_logging, which):
    """Control: with a second handler on the command's logger each line was written twice."""
    logger = bare_logging()[which]
    assert lines_of(logger, logger) == (1, 0)


def test_a_host_without_handlers_gets_each_line_once_on_stderr(bare_logging):
    assert lines_of(bare_logging()[1]) == (0, 1)


def test_two_sweeps_in_one_process_write_one_line_each(bare_logging):
    assert [lines_of(bare_logging()[1]) for _ in range(2)] == [(0, 1), (0, 1)]


def test_a_level_that_the_host_set_for_the_app_counts(bare_logging):
    root, app, _ = bare_logging()
    assert lines_of(app, root, logging.WARNING) == (0, 0)


def test_the_loggers_are_left_as_the_host_configured_them(bare_logging):
    loggers = bare_logging()
    lines_of(loggers[1])
    assert [each.level for each in loggers] == [logging.WARNING, logging.NOTSET, logging.NOTSET]
    assert [each.handlers for each in loggers] == [[], [], []]


def test_a_host_that_called_the_command_has_its_handlers_of_signals_back(monkeypatch):
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    monkeypatch.setattr(
        "zndraw_joblib.management.commands.run_sweeper.sweep_tenants",
        lambda: signal.raise_signal(signal.SIGTERM),
    )
    call_command("run_sweeper", interval=0.01)
    assert [signal.getsignal(number) for number in numbers] == before
