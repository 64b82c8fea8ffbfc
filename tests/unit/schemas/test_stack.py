"""No accepted schema and payload overflows a small stack, although the engine recurses."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

#: Checks pairs of a schema and a payload on a thread with a stack of 512 KiB; prints for each
#: whether the schema is accepted.
PROGRAM = """
import json, sys, threading
from zndraw_joblib.schemas import PayloadChecker, schema_errors

def check():
    for schema, payload in json.load(sys.stdin):
        print(schema_errors(schema, max_bytes=200_000, max_depth=32) == [])
        PayloadChecker(schema).errors(payload)

threading.stack_size(512 * 1024)
thread = threading.Thread(target=check)
thread.start()
thread.join()
"""

#: Passes the same pairs to the engine, without this project's bounds.
CONTROL = PROGRAM.replace(
    "PayloadChecker(schema).errors(", "validator_for(schema).validate("
).replace("import json", "from jsonschema_rs import validator_for\nimport json")


def run(program, *pairs):
    return subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(pairs),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def chain(length, step):
    definitions = {f"d{n}": step({"$ref": f"#/$defs/d{n + 1}"}) for n in range(length)}
    end = {f"d{length}": {"type": "string"}}
    return {"$defs": definitions | end, "$ref": "#/$defs/d0"}


def nested(levels, wrap, value):
    for _ in range(levels):
        value = wrap(value)
    return value


STEPS = {
    "$ref": lambda next: next,
    "allOf": lambda next: {"allOf": [next]},
    "anyOf": lambda next: {"anyOf": [next]},
    "oneOf": lambda next: {"oneOf": [next, False]},
    "not": lambda next: {"not": next},
    "if": lambda next: {"if": next, "else": False},
    "dependentSchemas": lambda next: {"dependentSchemas": {"a": next}},
    "unevaluated": lambda next: {"anyOf": [next], "unevaluatedProperties": False},
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_chain_of_subschemas_fits_on_a_small_stack(step):
    """Control: without MAX_STEPS the process ends by a signal for `anyOf` and `oneOf`."""
    done = run(PROGRAM, *((chain(length, step), {"a": 1}) for length in (4, 25, 250, 400, 1000)))
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.split()[0] == "True"


def test_the_longest_chain_beside_an_unevaluated_keyword_fits_on_a_small_stack():
    """Control: without the two MAX_EVALUATED limits the process ends by a signal."""
    schemas = [
        chain(length, STEPS["allOf"]) | {"unevaluatedProperties": False}
        for length in range(20, 120, 4)
    ]
    done = run(PROGRAM, *((schema, {"a": 1}) for schema in schemas))
    assert done.returncode == 0, done.stderr[-500:]
    assert {"True", "False"} == set(done.stdout.split())


#: Recursive schemas with several steps at each level; the bound accepts them over 60 levels.
DEEP = {
    "four steps a level": {"anyOf": [{"oneOf": [{"type": "string"}, {"items": {"$ref": "#"}}]}]},
    "unevaluated": {
        "anyOf": [{"items": {"$ref": "#"}}, {"type": "string"}],
        "unevaluatedItems": False,
    },
    "many steps a level": {
        "$ref": "#/$defs/d0",
        "$defs": {
            **{f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}]} for n in range(3)},
            "d3": {"items": {"$ref": "#"}, "type": ["array", "string"]},
        },
    },
}


@pytest.mark.parametrize("schema", DEEP.values(), ids=DEEP)
def test_a_deep_payload_of_a_recursive_schema_fits_on_a_small_stack(schema):
    payloads = [nested(60, lambda value: [value], end) for end in ("x", 1)]
    done = run(PROGRAM, *((schema, payload) for payload in payloads))
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.split() == ["True", "True"]


def test_the_engine_itself_ends_the_process_on_a_small_stack():
    """Control of the tests above: a chain that the bound would refuse."""
    assert run(CONTROL, (chain(1000, STEPS["anyOf"]), 1)).returncode not in (0, 1)
