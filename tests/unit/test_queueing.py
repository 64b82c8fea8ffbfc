"""The simulation behind docs/explanation/growth.md, compared with results of queueing theory."""

from __future__ import annotations

from math import factorial

import numpy as np
import pytest

from benchmarks import queueing
from benchmarks.queueing import EXPONENTIAL, SHAPES, Polling, Woken, erlang_c, mean_wait, simulate

TASKS = 400_000


def test_erlang_c_agrees_with_values_computed_by_hand():
    assert erlang_c(1, 0.7) == pytest.approx(0.7)
    assert erlang_c(2, 0.5) == pytest.approx(1 / 3)
    # The textbooks' formula, for 5 servers and a load of 4.
    last = 4**5 / factorial(5) * 5
    first = sum(4**number / factorial(number) for number in range(5))
    assert erlang_c(5, 0.8) == pytest.approx(last / (first + last))


@pytest.mark.parametrize(("servers", "at"), [(1, 0.7), (4, 0.8), (16, 0.85), (64, 0.9)])
def test_the_simulation_agrees_with_erlang_c(servers, at):
    waits = simulate(servers, at, EXPONENTIAL, TASKS)
    assert waits.waited == pytest.approx(erlang_c(servers, at), rel=0.08)
    assert waits.mean == pytest.approx(mean_wait(servers, at), rel=0.15)
    # The waiting time is exponential for tasks that wait.
    rate = servers * (1 - at)
    for share, quantile in ((0.05, waits.p95), (0.01, waits.p99)):
        expected = max(0.0, np.log(erlang_c(servers, at) / share) / rate)
        assert quantile == pytest.approx(expected, rel=0.2, abs=0.01)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_one_server_agrees_with_pollaczek_and_khinchine(shape):
    waits = simulate(1, 0.6, shape, TASKS)
    assert waits.mean == pytest.approx(mean_wait(1, 0.6, shape.variation), rel=0.1)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_service_times_have_mean_one_and_their_spread(shape):
    times = shape.draw(np.random.default_rng(1), TASKS)
    assert times.mean() == pytest.approx(1, rel=0.02)
    assert times.var() == pytest.approx(shape.variation, rel=0.15)


def test_the_oldest_task_is_started_by_the_first_free_server():
    assert list(Woken(2).serve([0, 1, 2, 3], [5, 3, 1, 1])) == [0, 0, 2, 2]


def test_a_polling_worker_polls_at_its_interval_and_when_it_has_finished_a_task():
    polling = Polling(1, 2.0)
    # Polls: none at 0, the first task at 2, the second at 5, when the first is finished; none at
    # 6 and 8, the third at 10.
    assert list(polling.serve([0.5, 3, 9.5], [3, 1, 1])) == [1.5, 2, 0.5]
    assert polling.polls == 6


def test_an_idle_polling_worker_starts_a_task_half_an_interval_late_on_average():
    waits = simulate(1, 0.001, EXPONENTIAL, 20_000, length=0.01, poll=2.0)
    assert waits.mean == pytest.approx(1, rel=0.05)
    assert waits.p95 == pytest.approx(1.9, rel=0.05)


def test_polling_at_a_short_interval_is_as_fast_as_being_woken():
    woken, polling = (simulate(4, 0.8, EXPONENTIAL, 20_000, poll=poll) for poll in (None, 0.001))
    assert polling.mean == pytest.approx(woken.mean, abs=0.005)
    assert polling.p99 == pytest.approx(woken.p99, abs=0.01)


def test_the_page_on_growth_shows_the_values_of_erlang_c():
    page = (queueing.DOCS / "growth.md").read_text()
    for row in queueing.exact_rows():
        assert f"| {' | '.join(row)} |" in page, "run python -m benchmarks.queueing"
