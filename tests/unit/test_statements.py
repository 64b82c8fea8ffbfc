"""The named statements of both databases agree with the state machine in `lifecycle`."""

from __future__ import annotations

import re

import pytest

from zndraw_joblib.lifecycle import LEASED_STATUSES, TERMINAL_STATUSES, TRANSITIONS, TaskStatus
from zndraw_joblib.storage import rows
from zndraw_joblib.storage.statements import load

VENDORS = ("postgresql", "sqlite")
PENDING, CLAIMED, RUNNING = TaskStatus.PENDING, TaskStatus.CLAIMED, TaskStatus.RUNNING

#: Statements that move tasks from states that they name, and the states that they move to. A grant
#: with `start` is a claim and a start at once. All others take their states as a parameter.
MOVES = {
    "grant_task": (PENDING, {CLAIMED, RUNNING}),
    "grant_tasks": (PENDING, {CLAIMED, RUNNING}),
}
#: Statements whose parameter `legal_from` is the result of `lifecycle.sources`.
REPORTS = {"start_tasks": {RUNNING}, "finish_tasks": set()}
#: Statements that move the tasks which another statement locked, see `storage.attempts`.
ENDS = {"end_attempts"}


def statuses(text):
    """The statuses that occur in a statement's text."""
    return {TaskStatus(word) for word in re.findall(r"'([a-z]+)'", text) if word in set(TaskStatus)}


def assigned(statement):
    """The statuses that a statement writes."""
    found = re.search(
        r"\bSET\b.*?\bstatus = (CASE .*? END|'\w+'|report\.status)", statement, re.DOTALL
    )
    return statuses(found[1]) if found else set()


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_statement_may_leave_out_the_last_columns_of_a_task_and_no_other(vendor):
    assert rows._row_maker(tuple(rows.TaskRow._fields[:-2]), vendor)
    without_status = tuple(name for name in rows.TaskRow._fields if name != "status")
    with pytest.raises(LookupError, match="returns no status"):
        rows._row_maker(without_status, vendor)


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_write_of_a_status_is_a_known_move(vendor):
    writing = {
        name
        for name, statement in load(vendor).items()
        if re.search(
            r"UPDATE zndraw_joblib_task\b.*?\bSET\b(?:(?!\bWHERE\b).)*\bstatus = ",
            statement,
            re.DOTALL,
        )
    }
    known = MOVES.keys() | REPORTS.keys() | ENDS
    assert writing == known, "add the new statement to MOVES or REPORTS"


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("name", MOVES)
def test_moves_are_those_of_the_lifecycle(vendor, name):
    statement = load(vendor)[name]
    source, targets = MOVES[name]
    assert assigned(statement) == targets
    assert f"status = '{source}'" in statement or f"status, '') = '{source}'" in statement
    for target in targets:
        started_by_grant = (source, target) == (PENDING, RUNNING)
        assert started_by_grant or target in TRANSITIONS[source]
    assert CLAIMED in TRANSITIONS[PENDING]
    assert RUNNING in TRANSITIONS[CLAIMED]


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("name", REPORTS)
def test_reports_take_their_legal_states_from_the_lifecycle(vendor, name):
    statement = load(vendor)[name]
    assert assigned(statement) == REPORTS[name]
    conditions = statement.partition("WHERE")[2]
    failed = {TaskStatus.FAILED} if name == "finish_tasks" else set()
    assert statuses(conditions) == failed, "the states to move from must be a parameter"
    assert "legal_from" in statement


@pytest.mark.parametrize("vendor", VENDORS)
def test_lists_of_statuses_are_the_leased_ones(vendor):
    """The lists are literals, because only an equal condition makes use of a partial index."""
    found = [
        (name, statuses(listed))
        for name, statement in load(vendor).items()
        for listed in re.findall(r"status(?:, '')?\)? IN (\('[^)]*\))", statement)
    ]
    assert len(found) >= 6
    assert {name for name, listed in found if listed != LEASED_STATUSES} == set()


def test_both_databases_have_the_same_statements():
    postgresql, sqlite = map(load, VENDORS)
    assert postgresql.keys() == sqlite.keys()


@pytest.mark.parametrize("vendor", VENDORS)
def test_statements_are_plain_text_with_named_parameters(vendor):
    for name, statement in load(vendor).items():
        assert not re.search(r"[{}]|%s|--|;", statement), name
        assert not re.search(r"%(?!\(\w+\)s|%)", statement.replace("%%", "")), name


def test_terminal_and_leased_states_cover_all_but_pending():
    """A new status belongs to one of the groups that statements and indexes are written for."""
    assert TERMINAL_STATUSES | LEASED_STATUSES | {PENDING} == set(TaskStatus)


@pytest.mark.parametrize("vendor", VENDORS)
def test_each_statement_that_raises_a_revision_sets_the_time_of_the_change(vendor):
    raising = {
        name
        for name, statement in load(vendor).items()
        if re.search(r"\brevision = (task\.)?revision \+", statement)
    }
    setting = {
        name for name, statement in load(vendor).items() if re.search(r"\bchanged_at = ", statement)
    }
    assert raising == setting
    assert {"grant_task", "start_tasks", "record_progress", "renew_attempt"} <= raising
