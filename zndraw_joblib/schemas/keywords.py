"""The keywords of JSON Schema (draft 2020-12), each for one value, as `jsonschema` calls them.

They take the place of those of `jsonschema` that write what they saw into messages (250 kB for each
branch of an `anyOf`), that are not linear, or that do not count their work; they agree with it on
what is valid. A reference is a place in the same document: nothing is looked up.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from jsonschema import Draft202012Validator

from zndraw_joblib.schemas.patterns import Pattern, measured
from zndraw_joblib.schemas.values import key, shown

if TYPE_CHECKING:
    from zndraw_joblib.schemas.checker import Run

_TYPES: dict[str, tuple[type, ...]] = {
    "array": (list,),
    "boolean": (bool,),
    "integer": (int,),
    "null": (NoneType,),
    "number": (int, float),
    "object": (dict,),
    "string": (str,),
}
_NUMBERS = _TYPES["number"]
ANY = frozenset(kind for kinds in _TYPES.values() for kind in kinds)


class Fault:
    """What is wrong, and where: keys and indexes, the innermost first."""

    __slots__ = ("detail", "path")

    def __init__(self, detail: str, *path: str | int) -> None:
        self.detail = detail
        self.path = list(path)


Faults = Iterable[Fault] | None


def reference_tokens(reference: str) -> list[str] | None:
    """The path that a reference within the document takes (RFC 6901, section 6), or None."""
    fragment = unquote(reference[1:])
    if reference[:1] != "#" or (fragment and fragment[0] != "/"):
        return None
    return [token.replace("~1", "/").replace("~0", "~") for token in fragment.split("/")[1:]]


def target(root: Any, tokens: Iterable[str]) -> Any:
    """What is at the end of that path, or None."""
    for token in tokens:
        if isinstance(root, list) and token.isascii() and token.isdigit() and len(token) < 9:
            canonical = token == str(int(token)) and int(token) < len(root)
            root = root[int(token)] if canonical else None
        else:
            root = root.get(token) if isinstance(root, dict) else None
    return root


def never(run: Run, value: None, instance: Any, schema: Any) -> Faults:
    """The schema `false`."""
    return (Fault("is not allowed"),)


# References and types


def _ref(run: Run, to: Any, instance: Any, schema: Any) -> Faults:
    return run.descend(instance, to)


def _prepare_ref(reference: str, schema: Any, root: Any) -> Any:
    tokens = reference_tokens(reference)
    to = None if tokens is None else target(root, tokens)
    if not isinstance(to, dict | bool):
        raise LookupError(reference)
    return to


class _Wanted(NamedTuple):
    kinds: frozenset[type]
    detail: str


def _prepare_type(names: str | list[str], schema: Any, root: Any) -> _Wanted:
    names = [names] if isinstance(names, str) else names
    kinds = frozenset(kind for name in names for kind in _TYPES[name])
    return _Wanted(kinds, f"is not of type {' or '.join(names)}")


def _type(run: Run, wanted: _Wanted, instance: Any, schema: Any) -> Faults:
    kind = type(instance)
    if kind in wanted.kinds:
        return None
    if kind is float and instance.is_integer() and int in wanted.kinds:
        return None
    return (Fault(wanted.detail),)


def _no_charge(amount: int) -> None:
    pass


def _prepare_enum(values: list[Any], schema: Any, root: Any) -> tuple[frozenset[Any], str]:
    few = ", ".join(map(shown, values[:5])) + (", …" if len(values) > 5 else "")
    return frozenset(key(value, _no_charge) for value in values), f"is not one of {few}"


def _prepare_const(value: Any, schema: Any, root: Any) -> tuple[frozenset[Any], str]:
    return _prepare_enum([value], schema, root)[0], f"is not {shown(value)}"


def _enum(run: Run, known: tuple[frozenset[Any], str], instance: Any, schema: Any) -> Faults:
    return None if key(instance, run.charge) in known[0] else (Fault(known[1]),)


# Combinations


def _any_of(run: Run, subschemas: list[Any], instance: Any, schema: Any) -> Faults:
    for subschema in subschemas:
        if run.valid(instance, subschema):
            return None
    return (Fault("is not valid under any of the given schemas"),)


def _one_of(run: Run, subschemas: list[Any], instance: Any, schema: Any) -> Faults:
    valid = 0
    for subschema in subschemas:
        valid += run.valid(instance, subschema)
        if valid > 1:
            return (Fault("is valid under more than one of the given schemas"),)
    return None if valid else (Fault("is not valid under any of the given schemas"),)


def _not(run: Run, subschema: Any, instance: Any, schema: Any) -> Faults:
    if run.valid(instance, subschema):
        return (Fault("is valid under a schema that it must not be valid under"),)
    return None


def _if(run: Run, subschema: Any, instance: Any, schema: Any) -> Faults:
    branch = schema.get("then" if run.valid(instance, subschema) else "else", True)
    return run.descend(instance, branch)


# Objects


def _properties(run: Run, known: dict[str, Any], instance: Any, schema: Any) -> Iterator[Fault]:
    if isinstance(instance, dict):
        for name in known if len(known) <= len(instance) else instance:
            if name in instance and name in known:
                value, subschema = instance[name], known[name]
                if type(value) not in run.plain(subschema):
                    yield from run.descend(value, subschema, name)


def _pattern_properties(
    run: Run, patterns: list[tuple[Pattern, Any]], instance: Any, schema: Any
) -> Iterator[Fault]:
    if isinstance(instance, dict):
        for pattern, subschema in patterns:
            for name, value in instance.items():
                if run.matches(pattern, name):
                    yield from run.descend(value, subschema, name)


def _additional_properties(
    run: Run, others: tuple[Any, Any, list[Pattern]], instance: Any, schema: Any
) -> Iterator[Fault]:
    if not isinstance(instance, dict):
        return
    subschema, known, patterns = others
    run.charge(len(instance))
    if not known and not patterns and subschema is not False:
        yield from run.descend_each(instance.items(), subschema)
        return
    plain = run.plain(subschema)
    for name, value in instance.items():
        if type(value) in plain or name in known:
            continue
        if any(run.matches(pattern, name) for pattern in patterns):
            continue
        if subschema is False:
            run.charge(8)
            yield Fault("is not a known property", name)
        else:
            yield from run.descend(value, subschema, name)


def _prepare_others(subschema: Any, schema: Any, root: Any) -> Any:
    patterns = [measured(pattern) for pattern in schema.get("patternProperties", ())]
    return subschema, schema.get("properties", {}), patterns


def _property_names(run: Run, subschema: Any, instance: Any, schema: Any) -> Iterator[Fault]:
    if isinstance(instance, dict) and str not in run.plain(subschema):
        for name in instance:
            for fault in run.descend(name, subschema, name):
                fault.detail = f"has a name that {fault.detail}"
                yield fault


def _required(run: Run, names: list[str], instance: Any, schema: Any) -> Iterator[Fault]:
    if isinstance(instance, dict):
        for name in names:
            if name not in instance:
                run.charge(25)
                yield Fault(f"{shown(name)} is a required property")


def _dependent_required(
    run: Run, needs: dict[str, list[str]], instance: Any, schema: Any
) -> Iterator[Fault]:
    if isinstance(instance, dict):
        for name, needed in needs.items():
            if name in instance:
                run.charge(len(needed))
                for other in needed:
                    if other not in instance:
                        run.charge(40)
                        yield Fault(f"{shown(other)} is required beside {shown(name)}")


# Arrays


def _items(run: Run, subschema: Any, instance: Any, schema: Any) -> Iterator[Fault]:
    first = len(schema.get("prefixItems", ()))
    if not isinstance(instance, list) or len(instance) <= first:
        return
    if subschema is False:
        yield Fault(f"has more than {first} items")
        return
    run.charge(len(instance) // 2)
    rest = instance[first:] if first else instance
    if not run.plain(subschema).issuperset(map(type, rest)):
        yield from run.descend_each(enumerate(rest, first), subschema)


def _prefix_items(run: Run, places: list[Any], instance: Any, schema: Any) -> Iterator[Fault]:
    if isinstance(instance, list):
        for index, (item, subschema) in enumerate(zip(instance, places, strict=False)):
            if type(item) not in run.plain(subschema):
                yield from run.descend(item, subschema, index)


def _contains(run: Run, subschema: Any, instance: Any, schema: Any) -> Faults:
    if not isinstance(instance, list):
        return None
    least, most = schema.get("minContains", 1), schema.get("maxContains", len(instance))
    plain, found = run.plain(subschema), 0
    run.charge(len(instance))
    for item in instance:
        found += type(item) in plain or run.valid(item, subschema)
        if found > most:
            return (Fault(f"has more than {shown(most)} items of the wanted kind"),)
        if found >= least and most >= len(instance):
            return None
    if found < least:
        return (Fault(f"has fewer than {shown(least)} items of the wanted kind"),)
    return None


def _unique_items(run: Run, unique: bool, instance: Any, schema: Any) -> Faults:
    if unique and isinstance(instance, list):
        run.charge(len(instance) * 4)
        if len({key(item, run.charge) for item in instance}) < len(instance):
            return (Fault("has items that are not unique"),)
    return None


# Strings, numbers, lengths


def _pattern(run: Run, pattern: Pattern, instance: Any, schema: Any) -> Faults:
    if isinstance(instance, str) and not run.matches(pattern, instance):
        run.charge(30)
        return (Fault(f"does not match the pattern {shown(schema['pattern'])}"),)
    return None


def _multiple_of(run: Run, of: Any, instance: Any, schema: Any) -> Faults:
    if type(instance) not in _NUMBERS:
        return None
    try:
        if isinstance(of, float):
            quotient = instance / of
            whole = int(quotient) == quotient
        else:
            whole = instance % of == 0
    except OverflowError:
        run.charge(200)
        whole = (Fraction(instance) / Fraction(of)).denominator == 1
    if whole:
        return None
    run.charge(30)
    return (Fault(f"is not a multiple of {shown(of)}"),)


def _bound(
    kinds: tuple[type, ...], fits: Callable[[Any, Any], bool], detail: str, measure: Any = None
) -> Callable[..., Faults]:
    def keyword(run: Run, limit: Any, instance: Any, schema: Any) -> Faults:
        if type(instance) in kinds and not fits(measure(instance) if measure else instance, limit):
            run.charge(30)
            return (Fault(detail.format(shown(limit))),)
        return None

    return keyword


_LEAST, _MOST = operator.ge, operator.le

KEYWORDS: dict[str, Callable[..., Faults]] = {
    **{
        # These hand down alone.
        keyword: Draft202012Validator.VALIDATORS[keyword]
        for keyword in ("allOf", "dependentSchemas")
    },
    "$ref": _ref,
    "additionalProperties": _additional_properties,
    "anyOf": _any_of,
    "const": _enum,
    "contains": _contains,
    "dependentRequired": _dependent_required,
    "enum": _enum,
    "exclusiveMaximum": _bound(_NUMBERS, operator.lt, "is not less than {}"),
    "exclusiveMinimum": _bound(_NUMBERS, operator.gt, "is not greater than {}"),
    "if": _if,
    "items": _items,
    "maxItems": _bound((list,), _MOST, "has more than {} items", len),
    "maxLength": _bound((str,), _MOST, "has more than {} characters", len),
    "maxProperties": _bound((dict,), _MOST, "has more than {} properties", len),
    "maximum": _bound(_NUMBERS, _MOST, "is greater than {}"),
    "minItems": _bound((list,), _LEAST, "has fewer than {} items", len),
    "minLength": _bound((str,), _LEAST, "has fewer than {} characters", len),
    "minProperties": _bound((dict,), _LEAST, "has fewer than {} properties", len),
    "minimum": _bound(_NUMBERS, _LEAST, "is less than {}"),
    "multipleOf": _multiple_of,
    "not": _not,
    "oneOf": _one_of,
    "pattern": _pattern,
    "prefixItems": _prefix_items,
    "patternProperties": _pattern_properties,
    "properties": _properties,
    "propertyNames": _property_names,
    "required": _required,
    "type": _type,
    "uniqueItems": _unique_items,
}

#: What is made of a keyword's value once, before payloads come.
PREPARED: dict[str, Callable[[Any, Any, Any], Any]] = {
    "$ref": _prepare_ref,
    "additionalProperties": _prepare_others,
    "const": _prepare_const,
    "enum": _prepare_enum,
    "pattern": lambda pattern, schema, root: measured(pattern),
    "patternProperties": lambda patterns, schema, root: [
        (measured(pattern), subschema) for pattern, subschema in patterns.items()
    ],
    "type": _prepare_type,
}
