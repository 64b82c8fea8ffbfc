"""The exceptions of the SDK cross processes, for instance out of a `ProcessPoolExecutor`."""

from __future__ import annotations

import pickle

import httpx
import pytest

from tests.client.stand_in import Rotate, refusal, task
from zndraw_joblib.client import (
    CredentialsError,
    InvalidPayloadError,
    PartlySubmittedError,
    RoundTripError,
    ServerError,
    TaskCancelled,
    TaskFailed,
    TaskInfo,
    TaskWaitTimeout,
    UnexpectedAnswerError,
)
from zndraw_joblib.client.exceptions import error_of

REFUSAL = error_of(refusal("invalid-payload", 422))


@pytest.mark.parametrize(
    ("error", "kind", "attribute"),
    [
        (REFUSAL, InvalidPayloadError, "status"),
        (error_of(httpx.Response(500)), ServerError, "problem"),
        (UnexpectedAnswerError(httpx.Response(200), {}), UnexpectedAnswerError, "retry_after"),
        (TaskWaitTimeout(3, ["t1", "t2"]), TaskWaitTimeout, "task_ids"),
        (RoundTripError(Rotate, "because"), RoundTripError, "args"),
        (PartlySubmittedError(["t1", None], REFUSAL), PartlySubmittedError, "task_ids"),
        (CredentialsError("no token"), CredentialsError, "args"),
        (TaskFailed(TaskInfo(**task("t1", error="E"))), TaskFailed, "error"),
        (TaskCancelled(TaskInfo(**task("t1"))), TaskCancelled, "task"),
    ],
)
def test_an_exception_can_be_pickled(error, kind, attribute):
    twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is kind
    assert str(twin) == str(error)
    assert getattr(twin, attribute) == getattr(error, attribute)
