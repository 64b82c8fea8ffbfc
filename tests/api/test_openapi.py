"""The OpenAPI document agrees with the checked-in file and with the current settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import call_command
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.settings import spectacular_settings

from tests.factories import V1, problem

pytestmark = pytest.mark.any_database

ROOT = Path(__file__).parents[2]


def validated(path):
    """Generate the document, validate it and fail on a warning; returns its text."""
    call_command("spectacular", file=str(path), validate=True, fail_on_warn=True)
    return path.read_text()


def document():
    return SchemaGenerator().get_schema(public=True)


def test_the_openapi_document_is_the_checked_in_one(tmp_path):
    checked_in = ROOT / "docs" / "openapi.yml"
    generated = validated(tmp_path / "openapi.yml")
    assert generated == checked_in.read_text(), "accept the change with `make openapi`"


def test_the_document_is_valid_in_openapi_3_1_too(tmp_path):
    spectacular_settings.apply_patches({"OAS_VERSION": "3.1.0"})
    try:
        assert "'null'" in validated(tmp_path / "openapi.yml")
    finally:
        spectacular_settings.clear_patches()


@pytest.mark.parametrize("own", [[], ["own"]], ids=["this app alone", "enums of the host too"])
def test_a_host_with_default_settings_generates_its_document_without_a_warning(own):
    """Control: failed with the enum of a report within its field, where the host has enums."""
    command = ["-m", "tests.small_host", *own, "spectacular", "--validate", "--fail-on-warn"]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # The name that drf-spectacular gives the host's enum without this app.
    assert ("    StatusEnum:\n" in done.stdout) == bool(own)


def test_no_field_has_an_enum_without_a_name():
    schemas = document()["components"]["schemas"]
    fields = {f"{name}.{field}": schema for name, model in schemas.items()
              for field, schema in model.get("properties", {}).items()}  # fmt: skip
    assert [name for name, schema in fields.items() if "Enum" in str(schema)] == []


def property_of(document, model, name):
    return document["components"]["schemas"][model]["properties"][name]


def parameter_of(document, path, method, name):
    operation = document["paths"][V1 + path][method]
    return next(each for each in operation["parameters"] if each["name"] == name)


def body_of(document, path, method):
    return document["paths"][V1 + path][method]["requestBody"]


LIMITS = {
    "max_batch_size": lambda doc: [
        property_of(doc, "ClaimBody", "limit")["maximum"],
        body_of(doc, "/tasks", "patch")["content"]["application/json"]["schema"]["maxItems"],
        body_of(doc, "/rooms/{room_id}/tasks/{full_name}", "post")["content"]["application/json"][
            "schema"
        ]["anyOf"][1]["maxItems"],
    ],
    "max_page_size": lambda doc: [
        parameter_of(doc, path, "get", "limit")["schema"]["maximum"]
        for path in ("/workers", "/rooms/{room_id}/jobs", "/rooms/{room_id}/tasks")
    ],
    "default_page_size": lambda doc: [parameter_of(doc, "/workers", "get", "limit")["description"]],
    "max_payload_bytes": lambda doc: [property_of(doc, "SubmissionBody", "payload")["description"]],
    "max_schema_bytes": lambda doc: [property_of(doc, "RegistrationBody", "schema")["description"]],
    "max_schema_depth": lambda doc: [property_of(doc, "RegistrationBody", "schema")["description"]],
    "max_error_bytes": lambda doc: [
        property_of(doc, model, "error")["description"]
        for model in ("ReportBody", "ListedReportBody")
    ],
    "max_log_bytes": lambda doc: [
        parameter_of(doc, "/tasks/{task_id}/log", "get", "offset")["description"]
    ],
    "max_body_bytes": lambda doc: [body_of(doc, "/tasks/claim", "post")["description"]],
    "max_file_bytes": lambda doc: [
        body_of(doc, "/tasks/{task_id}/files/{name}", "put")["description"]
    ],
    "max_json_depth": lambda doc: [body_of(doc, "/tasks/claim", "post")["description"]],
    "max_room_id_length": lambda doc: [
        parameter_of(doc, "/rooms/{room_id}/jobs", "get", "room_id")["description"]
    ],
    "long_poll_max_wait_seconds": lambda doc: [
        parameter_of(doc, "/tasks/{task_id}", "get", "Prefer")["description"]
    ],
    "idempotency_key_ttl_seconds": lambda doc: [
        parameter_of(doc, "/rooms/{room_id}/tasks/{full_name}", "post", "Idempotency-Key")[
            "description"
        ]
    ],
}


def test_the_document_shows_the_limits_of_the_settings(settings_of):
    """Control: failed with the defaults instead of settings in `AtMost` and `Described`."""
    changed = {setting: 50 + index for index, setting in enumerate(LIMITS)}
    settings_of(**changed)
    generated = document()
    for setting, value in changed.items():
        shown = LIMITS[setting](generated)
        words = [str(each).replace(".", " ").split() for each in shown]
        assert shown, setting
        assert all(str(value) in each for each in words), (setting, value, shown)


def test_the_document_lists_the_allowed_categories(settings_of):
    settings_of(allowed_categories=["bake", "fry"])
    shown = property_of(document(), "RegistrationBody", "category")
    assert "bake, fry" in shown["description"]


@pytest.mark.django_db
def test_unknown_fields_are_refused_with_the_names_of_the_known_ones(bob):
    answer = bob.send("post", "/tasks/claim", {"limits": 1})
    (error,) = problem(answer, "validation-error", 400)["errors"]
    assert error == {
        "detail": "Unknown field; known are worker_id, limit, start.",
        "pointer": "/limits",
    }
    grant = {"id": "01a20c7d-1505-73c8-b9b4-1ae3b824bb1b", "attempt": 1, "x": 1}
    answer = bob.send("patch", f"/workers/{bob.worker()}", {"tasks": [grant]})
    (error,) = problem(answer, "validation-error", 400)["errors"]
    assert error == {"detail": "Unknown field; known are id, attempt.", "pointer": "/tasks/0/x"}
    (error,) = problem(bob.register(color="red"), "validation-error", 400)["errors"]
    assert "known are category, name, schema, worker_id, retry, durable." in error["detail"]


@pytest.mark.django_db
def test_a_claim_of_more_tasks_than_a_batch_has_is_refused(bob, settings_of):
    settings_of(max_batch_size=57)
    answer = bob.send("post", "/tasks/claim", {"limit": 58})
    (error,) = problem(answer, "validation-error", 400)["errors"]
    assert error == {"detail": "Must be at most 57.", "pointer": "/limit"}
