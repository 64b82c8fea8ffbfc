"""Problems are in the language of the request, with all their texts or with none of them."""

from __future__ import annotations

from functools import partial
from http.client import responses

import pytest
from django.utils.translation import deactivate, override
from rest_framework.exceptions import APIException

from tests.factories import problem
from zndraw_joblib.exceptions import PROBLEM_TYPES, FieldError, InvalidPayload, ProblemException
from zndraw_joblib.models import Task
from zndraw_joblib.schemas.payloads import PayloadChecker

pytestmark = pytest.mark.any_database


@pytest.fixture
def by_header(settings):
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE[:2],
        "django.middleware.locale.LocaleMiddleware",
        *settings.MIDDLEWARE[2:],
    ]
    yield
    # The middleware leaves the last request's language to the thread.
    deactivate()


def texts(document):
    return [
        document["title"],
        document["detail"],
        *(error["detail"] for error in document.get("errors", [])),
    ]


@pytest.mark.parametrize("slug", PROBLEM_TYPES)
def test_each_problem_type_has_a_german_title_and_description(slug):
    problem_type = PROBLEM_TYPES[slug]
    with override("de"):
        german = texts(problem_type().document("", ""))
    with override("en"):
        english = texts(problem_type().document("", ""))
    assert english == [problem_type.title, problem_type.description()]
    assert not set(german) & set(english)


def with_credentials(person, **credentials):
    person.client.credentials(**credentials)
    return person.get("/workers")


def reported_with(field, value, person):
    """Report a status that goes with other fields."""
    status = "failed" if field in {"result", "progress", "message"} else "running"
    return person.send(
        "patch", "/tasks/01a20c7d-1505-73c8-b9b4-1ae3b824bb1b", {"status": status, field: value}
    )


SUBMIT = "/rooms/open/tasks/open:modifiers:Rotate"
REQUESTS = {
    "no credentials": lambda p: with_credentials(p),
    "a wrong token": lambda p: with_credentials(p, HTTP_AUTHORIZATION="Token wrong"),
    "an unknown address": lambda p: p.get("/nowhere"),
    "a method": lambda p: p.send("put", "/workers"),
    "an unknown field": lambda p: p.send("post", "/tasks/claim", {"x": 1}),
    "fields of wrong types": lambda p: p.send("post", "/tasks/claim", {"limit": "x", "start": 1}),
    "a limit": lambda p: p.send("post", "/tasks/claim", {"limit": 0}),
    "a missing field": lambda p: p.send("put", "/rooms/open/jobs", {}),
    "a query": lambda p: p.get("/workers?offset=1"),
    "a page": lambda p: p.get("/workers?limit=0"),
    "a status": lambda p: p.get("/rooms/open/tasks?status=x"),
    "a room id": lambda p: p.get("/rooms/a:b/tasks"),
    "a job's name": lambda p: p.get("/rooms/open/jobs/a:b"),
    "a part of a job's name": lambda p: p.get("/rooms/open/jobs/open:@:c"),
    "a category": lambda p: p.register(category="nope"),
    "a name": lambda p: p.register(name="a/b"),
    "a schema": lambda p: p.register(schema={"properties": {"a": {"$ref": "#/x"}, "b": 1}}),
    "a pattern": lambda p: p.register(schema={"pattern": "(a)\\1"}),
    "a media type": lambda p: p.client.post("/v1/joblib/workers", "x", content_type="text/plain"),
    "a worker": lambda p: p.send("patch", "/workers/nobody", {}),
    "a report": lambda p: p.send("patch", "/tasks/nothing", {"status": "running"}),
    "a reported status": lambda p: p.send("patch", "/tasks/x", {"status": "nope"}),
    **{
        f"{field} of a report": partial(reported_with, field, value)
        for field, value in {
            "error": "no",
            "result": 1,
            "progress": 0.5,
            "message": "x",
            "retry": False,
            "retry_after": 1,
        }.items()
    },
    "a time": lambda p: p.send("post", SUBMIT, {"run_at": "x"}),
    "a delay": lambda p: p.send("post", SUBMIT, {"run_at": "2030-01-31T12:00:00Z", "delay": 1}),
    "a problem type": lambda p: p.client.get("/v1/problems/nonsense"),
}


@pytest.mark.django_db
@pytest.mark.parametrize("request_of", REQUESTS.values(), ids=REQUESTS)
def test_a_refusal_is_german_for_a_german_reader_and_english_for_another(
    bob, by_header, request_of
):
    """Control: without `override` a French reader got details of DRF beside English titles."""
    answers = {}
    for language in ("de", "de-AT", "en", "fr"):
        bob.client.defaults["HTTP_ACCEPT_LANGUAGE"] = language
        answers[language] = answer = request_of(bob)
        assert answer["Content-Language"] == ("de" if language.startswith("de") else "en")
    shown = {language: texts(answer.json()) for language, answer in answers.items()}
    assert shown["de"] == shown["de-AT"]
    assert shown["en"] == shown["fr"]
    assert not set(shown["de"]) & set(shown["en"]), shown
    assert answers["de"].json()["type"] == answers["en"].json()["type"]
    pointers = [[e["pointer"] for e in answers[x].json().get("errors", [])] for x in ("de", "en")]
    assert pointers[0] == pointers[1]


@pytest.mark.django_db
def test_without_the_header_or_the_middleware_a_refusal_is_english(bob, settings):
    assert texts(bob.get("/nowhere").json())[0] == "Not Found"
    assert texts(bob.get("/nowhere", headers={"accept-language": "de"}).json())[0] == "Not Found"
    settings.LANGUAGE_CODE = "de"
    assert bob.get("/nowhere")["Content-Language"] == "de"


@pytest.mark.django_db
def test_a_refusal_with_a_text_that_has_no_translation_is_english_as_a_whole(bob, by_header):
    answer = bob.client.post(
        "/v1/joblib/tasks/claim",
        "{",
        content_type="application/json",
        headers={"accept-language": "de"},
    )
    document = problem(answer, "validation-error", 400)
    assert document["title"] == "Validation Error"
    assert document["errors"][0]["detail"].startswith("The body is not valid JSON:")
    assert answer["Content-Language"] == "en"


class HostsOwn(ProblemException):
    """The room is {locked}."""

    status = 423
    title = "Locked"


@pytest.mark.parametrize(
    "refusal",
    [HostsOwn(), InvalidPayload("Plain text."), InvalidPayload(errors=[FieldError("Plain {text")])],
)
def test_a_text_of_a_host_keeps_its_language_and_the_others_follow(refusal):
    with override("de"):
        german = refusal.document("", "")
    with override("en"):
        assert refusal.document("", "") == german


def refusing_room_access(request, room_id, action):
    """Refuse with the status in the room's id, and with DRF's own text."""
    refusal = APIException()
    refusal.status_code = int(room_id)
    raise refusal


@pytest.mark.django_db
@pytest.mark.parametrize("status", [*sorted(status for status in responses if status >= 400), 499])
def test_a_sites_refusal_of_any_status_has_a_title_in_the_language_of_its_text(
    bob, by_header, settings_of, status
):
    """Control: with a title in English alone, DRF's German text stood below `Locked`."""
    settings_of(room_access="tests.api.test_languages.refusing_room_access")
    german, english = (
        bob.get(f"/rooms/{status}/tasks", headers={"accept-language": language})
        for language in ("de", "en")
    )
    assert german.status_code == status
    assert (german["Content-Language"], english["Content-Language"]) == ("de", "en")
    assert german.json()["detail"] == "Ein Serverfehler ist aufgetreten."
    assert german.json()["title"] != english.json()["title"]


SCHEMA = {
    "type": "object",
    "required": ["a"],
    "minProperties": 2,
    "maxProperties": 3,
    "properties": {
        "a": {"type": "number", "minimum": 1, "maximum": 2, "multipleOf": 3},
        "b": {"enum": ["x", "y"]},
        "c": {"const": 1},
        "s": {"type": "string", "minLength": 2, "maxLength": 3, "pattern": "^a"},
        "l": {"minItems": 2, "maxItems": 3, "uniqueItems": True, "contains": {"const": 1}},
        "o": {"oneOf": [{"type": "string"}, {"type": "integer"}]},
        "p": {"oneOf": [{"type": "integer"}, {"type": "number"}]},
        "n": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "t": {"type": ["string", "null"]},
        "x": {"not": {"type": "integer"}},
        "e": {"exclusiveMinimum": 1, "exclusiveMaximum": 0},
        "f": False,
    },
    "propertyNames": {"maxLength": 5},
    "additionalProperties": False,
}
PAYLOADS = [
    *({}, {"a": 0.5}, {"a": 4}, {"a": "x"}, {"b": 1}, {"c": 2}, {"s": ""}, {"s": "bbbb"}),
    *({"l": []}, {"l": [1, 1, 1, 1]}, {"l": ["x"]}, {"o": 1.5}, {"p": 1}, {"n": 1}, {"t": 1}),
    *({"x": 1}, {"e": 0.5}, {"e": 1}, {"f": 1}, {"zzzzzzz": 1}, {"a": 1, "b": 1, "c": 1, "s": 1}),
]


@pytest.mark.parametrize("payload", PAYLOADS, ids=str)
def test_the_errors_of_a_payload_are_german_for_a_german_reader(payload):
    """A new release of the engine with other words fails here; its answers are English then."""
    errors = PayloadChecker(SCHEMA).errors(payload)
    refusal = InvalidPayload(errors=errors)
    with override("de"):
        german, language = refusal.texts()
    assert language == "de", [error.detail for error in errors]
    assert not set(german) & {refusal.title, refusal.detail, *(e.detail for e in errors)}


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("language", "title"), [("de", "Job nicht gefunden"), ("fr", "Job Not Found")]
)
@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_the_description_of_a_problem_type_is_in_the_readers_language(
    client, by_header, language, title, accept
):
    headers = {"accept": accept, "accept-language": language}
    page = client.get("/v1/problems/job-not-found", headers=headers)
    shown = "de" if language == "de" else "en"
    assert page["Content-Language"] == shown
    assert title in page.content.decode()
    if accept == "text/html":
        assert f'<html lang="{shown}">' in page.content.decode()
        assert ("Problemtyp" in page.content.decode()) == (shown == "de")


@pytest.mark.django_db
@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_the_description_of_a_problem_type_is_utf_8_whatever_the_site_writes(
    client, by_header, settings, accept
):
    """`DEFAULT_CHARSET` is for the pages of the site, and this page says that it is UTF-8."""
    settings.DEFAULT_CHARSET = "cp437"
    headers = {"accept": accept, "accept-language": "de"}
    page = client.get("/v1/problems/unsupported-media-type", headers=headers)
    assert "Nicht unterstützter Medientyp" in page.content.decode("utf-8")


@pytest.mark.django_db
def test_the_results_of_a_list_of_reports_are_german_too(bob, by_header):
    bob.register()
    bob.submit()
    task = bob.claim()
    bob.client.defaults["HTTP_ACCEPT_LANGUAGE"] = "de"
    report = {"id": task["id"], "status": "running", "attempt": 9}
    (result,) = bob.report_many([report])
    assert result["problem"]["title"] == "Reservierung verloren"
    assert result["problem"]["detail"].startswith("Versuch 9 ist nicht")
    # Stored text stays English, because its readers have other languages.
    assert Task.objects.get().error is None
