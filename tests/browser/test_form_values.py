"""The payloads that forms make of schemas, without a job or a submit."""

from __future__ import annotations

import datetime
import enum
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Annotated, Any, Literal

import jsonschema_rs
import pytest
from playwright.sync_api import Browser, Page
from pydantic import BaseModel, Field, TypeAdapter

from tests.browser.site import Site

STATIC = "/static/zndraw_joblib/pages"
#: Puts the form of a schema into the page, or null where there is none.
MAKE = f"""async ([schema, value]) => {{
    const {{ payloadField }} = await import("{STATIC}/builder.js");
    const {{ parseJSON }} = await import("{STATIC}/json.js");
    const text = (key) => key;
    const parsed = value === null ? undefined : parseJSON(value);
    window.form = payloadField(parseJSON(schema), parsed, {{ text, changed() {{}} }});
    document.body.replaceChildren(...(window.form ? [window.form.node] : []));
    return window.form !== null;
}}"""


class Form:
    """A form in a page that the tests of this module share."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def make(self, schema: Any, value: Any = None) -> bool:
        """Make the form of a schema with its defaults or a value; false where there is none."""
        given = None if value is None else json.dumps(value)
        made: bool = self.page.evaluate(MAKE, [json.dumps(schema), given])
        return made

    @property
    def payload(self) -> Any:
        """The payload as the form is."""
        return json.loads(self.page.evaluate("JSON.stringify(window.form.get())"))

    @property
    def errors(self) -> list[str]:
        """The errors that the form finds by itself."""
        found: list[str] = self.page.evaluate("window.form.check().map((each) => each.message)")
        return found


@pytest.fixture(scope="module")
def form(site: Site, browser: Browser) -> Iterator[Form]:
    """A form in a page that the tests of this module share."""
    context = browser.new_context(base_url=site, locale="en")
    context.set_default_timeout(5_000)
    page = context.new_page()
    page.goto("/rooms/@global/")
    yield Form(page)
    context.close()


def one(schema: Any, *, required: bool = False) -> dict[str, Any]:
    """A schema of the single property `a`."""
    return {
        "type": "object",
        "properties": {"a": schema},
        **({"required": ["a"]} if required else {}),
    }


class Colour(enum.Enum):
    """Two colours."""

    RED = "red"
    GREEN = "green"


class Cat(BaseModel):
    """A pet that hunts."""

    kind: Literal["cat", "lion"]
    lives: int = 9


class Dog(BaseModel):
    """A pet that fetches."""

    kind: Literal["dog"] = "dog"
    tricks: list[str] = []


class Tree(BaseModel):
    """A model that holds itself."""

    value: int = 0
    left: Tree | None = None
    children: dict[str, Tree] = {}


class Sum(BaseModel):
    """A term that needs two others."""

    op: Literal["sum"] = "sum"
    left: Term
    right: Term


class Number(BaseModel):
    """A term."""

    op: Literal["number"] = "number"
    value: float = 0


Term = Annotated[Sum | Number, Field(discriminator="op")]
Sum.model_rebuild()


class Pydantic(BaseModel):
    """Kinds of fields that pydantic has."""

    nothing: None = None
    optional: int | None = None
    five_or_none: int | None = 5
    colour: Colour = Colour.GREEN
    pet: Cat | Dog = Field(default=Cat(kind="lion"), discriminator="kind")
    pets: list[Cat | Dog] = [Dog(), Cat(kind="cat", lives=1)]
    counts: dict[str, int] = {"x": 0}
    by_colour: dict[Colour, float] = {Colour.RED: 0.5}
    patterned: dict[Annotated[str, Field(pattern="^k")], int] = {"k": 1}
    pair: tuple[int, str] = (0, "")
    any_length: tuple[int, ...] = ()
    price: Decimal = Decimal("0.10")
    day: datetime.date = datetime.date(2026, 1, 2)
    at: datetime.datetime = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)
    naive: datetime.datetime = datetime.datetime(2026, 1, 2, 3, 4)
    clock: datetime.time = datetime.time(3, 4)
    lasts: datetime.timedelta = datetime.timedelta(hours=1)
    above: float = Field(0.5, gt=0, lt=1)
    tenths: float = Field(0.3, ge=0, le=1, multiple_of=0.1)
    off: bool = False
    zero: int = 0
    blank: str = ""
    lines: str = "a\r\nb"
    none: list[int] = []
    anything: Any = None
    tree: Tree = Tree(left=Tree(value=1))


def test_untouched_form_of_a_model_sends_its_defaults(form: Form) -> None:
    assert form.make(Pydantic.model_json_schema())
    assert form.payload == Pydantic().model_dump(mode="json")
    assert form.errors == []


def test_form_shows_a_payload_and_sends_it_unchanged(form: Form) -> None:
    payload = {
        **Pydantic().model_dump(mode="json"),
        "five_or_none": None,
        "pet": {"kind": "dog", "tricks": ["sit"]},
        "at": "2026-01-02T03:04:05.678901+02:00",
        "tree": {"value": 1, "left": {"value": 2}, "children": {"a": {"value": 3}}},
    }
    Pydantic.model_validate(payload)
    assert form.make(Pydantic.model_json_schema(), payload)
    sent = form.payload
    assert Pydantic.model_validate(sent) == Pydantic.model_validate(payload)
    assert {name: sent[name] for name in payload if name != "tree"} == {
        name: value for name, value in payload.items() if name != "tree"
    }


@pytest.mark.parametrize("model", [Tree, Sum, TypeAdapter(Term)])
def test_recursive_models_have_forms(form: Form, model: Any) -> None:
    schema = model.json_schema() if isinstance(model, TypeAdapter) else model.model_json_schema()
    assert form.make(schema)
    assert form.page.locator("input, select").count() < 30


INTEGER = {"type": "integer"}
ALTERNATIVES = {
    "type": "object",
    "properties": {"a": {"type": "integer", "default": 1}, "b": INTEGER},
    "required": ["a"],
    "anyOf": [{"required": ["b"], "title": "With b"}, {"title": "Without"}],
}


@pytest.mark.parametrize(
    ("schema", "payload"),
    [
        (one({"default": None, "type": "integer"}), {}),
        (one({"default": 0, "type": "integer"}), {"a": 0}),
        (one({"default": "", "type": "string"}), {"a": ""}),
        (one({"default": [], "type": "array", "items": INTEGER}), {"a": []}),
        (one({"default": {}, "type": "object"}), {"a": {}}),
        (one({"default": None}), {"a": None}),
        (one({"default": False}), {"a": False}),
        (one({"type": "string", "format": "date", "default": "today"}), {"a": "today"}),
        (one({"type": "string", "format": "constructor", "default": "x"}), {"a": "x"}),
        (one({"type": "string", "default": "a\rb"}), {"a": "a\rb"}),
        (one({"enum": ["", " "], "default": " "}), {"a": " "}),
        (one(True), {}),
        (one(False), {}),
        (one({"type": "array", "items": False}, required=True), {"a": []}),
        (one({"type": "array", "items": False, "minItems": 0}), {}),
        (
            one({"type": "array", "prefixItems": [INTEGER], "items": False, "default": [4]}),
            {"a": [4]},
        ),
        (
            {
                **one({"allOf": [{"$ref": "#/$defs/n"}, {"minimum": 2}], "default": 3}),
                "$defs": {"n": INTEGER},
            },
            {"a": 3},
        ),
        (
            {"$defs": {"n": INTEGER}, **one({"$ref": "#/$defs/n", "default": 4})},
            {"a": 4},
        ),
        # Each part of `allOf` holds, also where both speak of one property.
        (
            {"allOf": [one({**INTEGER, "default": 2}), one({"minimum": 1}), {"required": ["a"]}]},
            {"a": 2},
        ),
        (ALTERNATIVES, {"a": 1, "b": None}),
    ],
)
def test_form_of_an_unusual_schema_sends_its_defaults(
    form: Form, schema: Any, payload: Any
) -> None:
    assert form.make(schema)
    sent = form.payload
    assert sent == payload or sent == {k: v for k, v in payload.items() if v is not None}


def test_property_of_two_parts_of_all_of_has_to_satisfy_both(form: Form) -> None:
    form.make({"allOf": [one(INTEGER), one({"minimum": 1, "maximum": 7}), one({"maximum": 9})]})
    slider = form.page.get_by_role("slider")
    assert (slider.get_attribute("min"), slider.get_attribute("max")) == ("1", "7")


@pytest.mark.parametrize(
    "limits",
    [
        {"minimum": 0.05, "maximum": 1.05, "multipleOf": 0.1},
        {"minimum": 0.3, "maximum": 2, "multipleOf": 0.1},
        {"exclusiveMinimum": 0, "exclusiveMaximum": 1, "multipleOf": 0.1},
        {"minimum": 1, "maximum": 22, "multipleOf": 5},
        {"minimum": 0.5, "maximum": 9.5, "type": "integer"},
        {"exclusiveMinimum": 0.5, "exclusiveMaximum": 9, "type": "integer"},
        {"minimum": -7, "maximum": 7, "multipleOf": 0.5, "type": "integer"},
        {"exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"minimum": -1e-6, "maximum": 1e-6},
    ],
    ids=json.dumps,
)
def test_slider_reaches_valid_numbers_only(form: Form, limits: dict[str, Any]) -> None:
    schema = one({"type": "number", **limits}, required=True)
    assert form.make(schema)
    slider = form.page.get_by_role("slider")
    for keys in (["End"], ["Home"], ["ArrowRight"], ["ArrowRight", "ArrowRight"]):
        for key in keys:
            slider.press(key)
        assert jsonschema_rs.is_valid(schema, form.payload), form.payload


def test_click_on_an_untouched_slider_chooses_its_number(form: Form) -> None:
    form.make(one({"type": "number", "minimum": 0, "maximum": 4}, required=True))
    form.page.get_by_role("slider").click()
    assert abs(form.payload["a"] - 2) < 0.2
    form.make(one({"type": "number", "minimum": 0, "maximum": 4}, required=True))
    form.page.get_by_role("slider").click(position={"x": 1, "y": 5})
    assert form.payload == {"a": 0}


@pytest.mark.parametrize(
    ("schema", "payload", "errors"),
    [
        ({"type": "string", "default": "abc"}, {"a": ""}, []),
        ({"type": ["string", "null"], "default": "abc"}, {"a": None}, []),
        ({"type": ["integer", "null"], "default": 5}, {"a": None}, []),
        ({"type": "integer", "default": 5}, {}, ["field.required"]),
        ({"type": "string", "format": "date", "default": "2026-01-02"}, {}, ["field.required"]),
        ({"type": "integer", "default": None}, {}, []),
        ({"type": "string"}, {}, []),
    ],
)
def test_emptied_field_does_not_get_its_default_behind_the_form(
    form: Form, schema: Any, payload: Any, errors: list[str]
) -> None:
    form.make(one(schema))
    form.page.locator("input").fill("")
    assert form.payload == payload
    assert form.errors == errors


@pytest.mark.parametrize(
    "schema",
    [
        {"type": ["string", "null"], "default": "abc"},
        {"type": ["integer", "null"]},
        {"anyOf": [one(INTEGER), {"type": "null"}], "default": {"a": 1}},
        {"anyOf": [INTEGER, {"type": "string"}, {"type": "null"}], "default": 1},
        {"enum": [1, 2, None], "default": 1},
        {"type": ["boolean", "null"], "default": True},
    ],
)
def test_null_in_a_payload_stays_null(form: Form, schema: Any) -> None:
    form.make(one(schema), {"a": None})
    assert form.payload == {"a": None}


def test_names_beside_the_declared_ones_have_their_schema(form: Form) -> None:
    form.make({"type": "object", "required": ["x"], "additionalProperties": INTEGER}, {"y": 1})
    assert form.page.get_by_role("spinbutton").count() == 2
    form.make({"type": "object", "patternProperties": {"^k": INTEGER}}, {"k": 1})
    assert form.page.get_by_role("spinbutton").count() == 0
    pattern = {"patternProperties": {"^k": INTEGER}, "additionalProperties": False}
    form.make({"type": "object", **pattern}, {"k": 1})
    assert form.page.get_by_role("spinbutton").count() == 1


def test_choices_of_two_types_can_be_told_apart(form: Form) -> None:
    form.make(one({"enum": [1, "1", "two", ""]}, required=True))
    options = form.page.locator("option").all_text_contents()
    assert options == ["field.choose", "1", '"1"', "two", '""']


def many_choices() -> Any:
    names = [f"p{number}" for number in range(290)]
    return {
        "type": "object",
        "properties": {name: {"$ref": "#/$defs/e"} for name in names},
        "$defs": {"e": {"enum": list(range(9_000))}},
    }


def wide_merges() -> Any:
    names = [f"p{number}" for number in range(290)]
    return {
        "type": "object",
        "properties": {name: {"$ref": "#/$defs/all"} for name in names},
        "$defs": {
            "all": {"allOf": [{"$ref": "#/$defs/wide"}] * 95},
            "wide": {"type": "object", "properties": {f"q{n}": True for n in range(3_000)}},
        },
    }


@pytest.mark.parametrize("schema", [many_choices, wide_merges])
def test_schema_that_multiplies_its_parts_does_not_freeze_the_page(
    form: Form, schema: Callable[[], Any]
) -> None:
    before = form.page.evaluate("performance.now()")
    form.make(schema())
    assert form.page.evaluate("performance.now()") - before < 5_000
    assert form.page.locator("option").count() < 40_000
