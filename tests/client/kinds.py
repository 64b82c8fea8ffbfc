"""Models of all kinds that pydantic has; `tests.client.instances` has instances of them."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypeVar
from uuid import UUID

from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasGenerator,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    ImportString,
    Json,
    PlainSerializer,
    PlainValidator,
    PrivateAttr,
    RootModel,
    SecretBytes,
    SecretStr,
    SerializeAsAny,
    Tag,
    computed_field,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

T = TypeVar("T")


class Aliased(BaseModel):
    n_steps: int = Field(5, alias="nSteps")


class RequiredAlias(BaseModel):
    n_steps: int = Field(alias="nSteps")


class ValidationAlias(BaseModel):
    model_config = ConfigDict(extra="forbid")
    n_steps: int = Field(5, validation_alias="steps in")


class SerializationAlias(BaseModel):
    n_steps: int = Field(5, serialization_alias="steps out")


class TwoAliases(BaseModel):
    a: int = Field(validation_alias="in", serialization_alias="b")
    b: int = Field(validation_alias="a", serialization_alias="in")


class Choices(BaseModel):
    first: int = Field(5, validation_alias=AliasChoices(AliasPath("deep", 0), "steps", "count"))
    second: int = Field(5, validation_alias=AliasChoices("a", "b"))
    third: int = Field(5, validation_alias=AliasChoices("c", "third"), serialization_alias="C")


class ByName(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    n_steps: int = Field(5, alias="nSteps")


class NameOnly(BaseModel):
    model_config = ConfigDict(validate_by_name=True, validate_by_alias=False, extra="forbid")
    n_steps: int = Field(alias="nSteps")


class SerializedByAlias(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)
    n_steps: int = Field(5, serialization_alias="nSteps")


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")
    n_steps: int = 5


class TwoGenerators(BaseModel):
    model_config = ConfigDict(
        alias_generator=AliasGenerator(validation_alias=str.upper, serialization_alias=to_camel)
    )
    n_steps: int
    inner: Camel


@pydantic_dataclass
class Point:
    x: float
    y_value: float = Field(0, validation_alias="Y", serialization_alias="yy")


@dataclasses.dataclass
class Plain:
    x: float
    names: list[str] = dataclasses.field(default_factory=list)


class Pair(NamedTuple):
    left: int
    right: str


class Options(TypedDict):
    size: int
    name: NotRequired[Annotated[str, Field(alias="theName")]]


class Nested(BaseModel):
    one: TwoGenerators
    many: list[TwoAliases]
    by_key: dict[int, Aliased]
    pair: tuple[Camel, ValidationAlias]
    choice: Camel | ValidationAlias | None = None
    point: Point
    options: Options
    root: RootModel[list[ValidationAlias]]


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    width: float

    @computed_field
    def area(self) -> float:
        return self.width**2


class WithJson(BaseModel):
    numbers: Json[list[int]]
    anything: Json[Any]
    inner: Json[Aliased]


class Box(BaseModel, Generic[T]):
    content: T


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = Field(alias="livesLeft")


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    lives: int = Field(alias="yearsLeft")


def species(value: Any) -> str:
    kind: str = value["kind"] if isinstance(value, dict) else value.kind
    return kind


class Owner(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    other: Annotated[
        Annotated[Cat, Tag("cat")] | Annotated[Dog, Tag("dog")], Discriminator(species)
    ]


class Mapping(RootModel[dict[str, int]]):
    pass


class Wrapped(RootModel[Camel]):
    pass


class Tree(BaseModel):
    label: str = Field(alias="Label")
    children: list[Tree] = Field([], alias="Children")


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)
    number: int
    _cache: dict[str, int] = PrivateAttr(default_factory=dict)


class Open(BaseModel):
    model_config = ConfigDict(extra="allow", alias_generator=to_camel)
    known_field: int = 1


class OpenPoints(BaseModel):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Camel] = Field(init=False)


class Base64(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    data: bytes


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Mode(StrEnum):
    FAST = "fast"


class Values(BaseModel):
    when: datetime = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    naive: datetime = datetime(2026, 1, 2, 3, 4, 5)
    day: date = date(2026, 1, 2)
    at: time = time(3, 4, 5, 6)
    delta: timedelta = timedelta(days=-1, microseconds=1)
    exact: Decimal = Decimal("0.10000000000000000000000000001")
    exponent: Decimal = Decimal("1E+5")
    ratio: Fraction = Fraction(1, 3)
    text_bytes: bytes = "é".encode()
    identifier: UUID = UUID(int=7)
    colour: Colour = Colour.RED
    level: Level = Level.LOW
    mode: Mode = Mode.FAST
    path: Path = Path("/tmp/x")
    numbers: set[int] = {1, 2, 3}
    frozen: frozenset[str] = frozenset({"a"})
    fixed: tuple[int, str] = (1, "a")
    several: tuple[float, ...] = (0.1, 1e-300, 1.7976931348623157e308)
    line: deque[int] = deque([1, 2])
    large: int = 2**80
    precise: float = 0.1 + 0.2
    address: IPv4Address = IPv4Address("127.0.0.1")
    number: complex = 1 + 2j
    raw: Any = None
    keyed: dict[UUID, dict[date, int]] = {UUID(int=1): {date(2026, 1, 1): 2}}
    pair: Pair = Pair(1, "b")
    plain: Plain = Plain(1.5, ["a"])
    imported: ImportString[Any] = Field("pathlib.Path", validate_default=True)
    angle: float = 0
    mixed: list[int | float | str | bool | None] = [1, 1.5, "1", True, None]


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    when: datetime = datetime(2026, 1, 2, tzinfo=UTC)
    numbers: set[int] = {1}
    fixed: tuple[int, float] = (1, 2.5)
    colour: Colour = Colour.RED
    identifier: UUID = UUID(int=7)
    keyed: dict[int, str] = {1: "a"}


class Serialized(BaseModel):
    """Serializers of the class's own, which its validators undo."""

    number: int
    secret: SecretStr

    @field_serializer("secret", when_used="json")
    def reveal(self, value: SecretStr) -> str:
        return value.get_secret_value()

    @field_serializer("number")
    def as_hex(self, value: int) -> str:
        return hex(value)

    @field_validator("number", mode="before")
    @classmethod
    def from_hex(cls, value: Any) -> Any:
        return int(value, 16) if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> Any:
        found = handler.resolve_ref_schema(handler(schema))
        found["properties"]["number"] = {"type": "string"}
        return found


class Packed(BaseModel):
    x: int
    y: int

    @model_validator(mode="before")
    @classmethod
    def unpack(cls, value: Any) -> Any:
        return dict(zip("xy", value["xy"], strict=True)) if "xy" in value else value

    @model_serializer
    def pack(self) -> dict[str, Any]:
        return {"xy": [self.x, self.y]}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> Any:
        return {"type": "object", "properties": {"xy": {"type": "array"}}, "required": ["xy"]}


class Matrix:
    """A type that pydantic does not know, and that has no `__eq__`."""

    def __init__(self, rows: list[list[float]]) -> None:
        self.rows = rows


class WithMatrix(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    matrix: Annotated[
        Matrix,
        PlainValidator(
            lambda value: value if isinstance(value, Matrix) else Matrix(value),
            json_schema_input_type=list[list[float]],
        ),
        PlainSerializer(lambda value: value.rows),
    ]


class Counter(BaseModel):
    """A default that differs at each validation is sent, like any value."""

    made: datetime = Field(default_factory=lambda: datetime.now(UTC))
    hidden: int = Field(0, exclude=True)


class Infinite(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="null")
    cutoff: float | None = None


class Secretive(BaseModel):
    token: SecretStr = SecretStr("")
    key: SecretBytes = SecretBytes(b"")


class Base(BaseModel):
    a: int = 0


class Derived(Base):
    b: int = 0


class Holder(BaseModel):
    base: Base = Base()
    any_base: SerializeAsAny[Base] = Base()


class PathOnly(BaseModel):
    n_steps: int = Field(5, validation_alias=AliasPath("deep", "steps"))


class Radians(BaseModel):
    """Its validator is not idempotent."""

    angle: Annotated[float, AfterValidator(lambda degrees: degrees / 57.3)]


class Loose(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    value: Any = None
    sequence: Sequence[int] = []
    union: Path | str | None = None
    data: bytes = b""
    rounded: Annotated[float, PlainSerializer(lambda value: round(value, 2))] = 0.0
    tags: Annotated[list[str], BeforeValidator(lambda value: value)] = []


class Hidden(BaseModel):
    password: str = Field("", exclude=True)


class RootList(RootModel[list[int]]):
    pass


class RootEither(RootModel[list[int] | dict[str, int]]):
    pass


class WithCallable(BaseModel):
    function: Callable[[int], int]


class InfiniteDefault(BaseModel):
    cutoff: float = float("inf")
