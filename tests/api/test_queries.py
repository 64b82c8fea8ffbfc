"""Query parameters that an endpoint does not know are refused, not ignored."""

from __future__ import annotations

import pytest
from drf_spectacular.generators import SchemaGenerator

from tests.factories import problem

pytestmark = pytest.mark.django_db

PLACES = {
    "room_id": "open",
    "full_name": "open:modifiers:Rotate",
    "task_id": "01a20c7d-1505-73c8-b9b4-1ae3b824bb1b",
    "worker_id": "w",
    "name": "a.txt",
    "slug": "not-found",
}


def endpoints():
    """The path, the method and the query parameters of each endpoint in the OpenAPI document."""
    paths = SchemaGenerator().get_schema(public=True)["paths"]
    for path, operations in paths.items():
        if not path.startswith(("/v1/joblib", "/v1/me", "/v1/problems")):
            continue
        for method, operation in operations.items():
            names = [
                each["name"] for each in operation.get("parameters", []) if each["in"] == "query"
            ]
            yield path.format_map(PLACES), method, names


def test_every_endpoint_refuses_an_unknown_query_parameter_and_names_those_it_has(bob):
    """Control: without `check_query` each endpoint ignored the parameter."""
    found = list(endpoints())
    assert len(found) >= 17
    for path, method, names in found:
        answer = getattr(bob.client, method)(f"{path}?submitter=me")
        document = problem(answer, "validation-error", 400)
        known = f"known are {', '.join(names)}" if names else "this endpoint has none"
        detail = f"Unknown query parameter; {known}."
        assert document["errors"] == [{"detail": detail, "pointer": "/submitter"}], path
        assert document["detail"] == f"/submitter: {detail}"


@pytest.mark.parametrize(
    "query", ["offset=2", "limits=1", "Limit=1", "limit%20=1", "format=json", "=x"]
)
def test_a_misspelt_parameter_is_refused_beside_a_known_one(bob, query):
    (error,) = problem(bob.get(f"/workers?limit=1&{query}"), "validation-error", 400)["errors"]
    assert error["detail"] == "Unknown query parameter; known are limit, cursor."


@pytest.mark.parametrize("name", ["limit", "cursor"])
def test_a_repeated_parameter_is_refused(bob, name):
    answer = bob.get(f"/workers?{name}=1&{name}=1")
    (error,) = problem(answer, "validation-error", 400)["errors"]
    assert error == {
        "detail": "The query parameter must be given once only.",
        "pointer": f"/{name}",
    }


def test_head_is_refused_like_get(bob):
    assert bob.client.head("/v1/joblib/workers?offset=1").status_code == 400
    assert bob.client.head("/v1/joblib/workers?limit=1").status_code == 200


@pytest.mark.parametrize("query", ["?", "?&", "?limit=1", "?limit=1&"])
def test_known_and_empty_queries_are_accepted(bob, query):
    assert bob.get(f"/workers{query}").status_code == 200


def test_other_refusals_come_first(bob, client):
    """The caller's credentials and the address decide before the query is looked at."""
    problem(client.get("/v1/joblib/workers?x=1"), "not-authenticated", 401)
    problem(bob.get("/nowhere?x=1"), "not-found", 404)
    problem(bob.send("put", "/workers?x=1"), "method-not-allowed", 405)


def test_a_long_name_is_cut_in_the_answer(bob):
    (error,) = problem(bob.get(f"/workers?{'x' * 3000}=1"), "validation-error", 400)["errors"]
    assert error["pointer"] == "/" + "x" * 128
