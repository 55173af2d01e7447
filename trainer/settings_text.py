"""Settings from names and values as people and files give them, and what each takes, in words. Knows no setting by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import ValidationError

from trainer.errors import SettingsError
from trainer.settings import Settings

NEAR = 0.7
"""How alike a name must be to one that there is, from 0 to 1, for that one to be meant."""


def validated(values: Mapping[str, Any]) -> Settings:
    """`Settings` from names and values, which may come as text: numbers, and texts with `|` between them.

    Raises `SettingsError` that names the setting, what it takes, and the value.
    """
    try:
        return Settings.model_validate({name: _parted(name, value) for name, value in dict(values).items()})
    except ValidationError as error:
        first = error.errors()[0]
    if not first["loc"]:
        raise SettingsError(first["msg"].removeprefix("Value error, "))
    name = str(first["loc"][0])
    if first["type"] == "value_error":
        raise SettingsError(f"{name}: {first['msg'].removeprefix('Value error, ')}")
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name.lower().replace("-", "_"), Settings.model_fields, n=1, cutoff=NEAR)
        hint = f"the nearest is {near[0]}" if near else "`impasto train --help` lists them all"
        raise SettingsError(f"There is no setting named {name}; {hint}.")
    raise SettingsError(f"{name} must be {wanted(name)}, not {_quoted(values[name])}.")


def wanted(name: str) -> str:
    """What a setting takes, in words: "a whole number from 1 to 512"."""
    return _words(_schema()[name])


@cache
def _schema() -> dict[str, dict[str, Any]]:
    """The settings as JSON Schema, which tells of types and bounds in one way for all."""
    properties: dict[str, dict[str, Any]] = Settings.model_json_schema()["properties"]
    return properties


def _words(schema: Mapping[str, Any]) -> str:
    """A JSON Schema of one value in words."""
    if "anyOf" in schema:
        return " or ".join(_words(one) for one in schema["anyOf"])
    if "enum" in schema:
        *others, last = map(str, schema["enum"])
        return f"{', '.join(others)} or {last}"
    kind = schema["type"]
    if kind == "array":
        each = _words(schema["items"])
        return "texts, separated by |" if each == "a text" else f"{each}; or several, separated by |"
    if kind in ("integer", "number"):
        return " ".join(filter(None, ["a whole number" if kind == "integer" else "a number", _bounds(schema)]))
    if "maxLength" in schema:
        return f"a text of at most {schema['maxLength']} characters"
    return {"boolean": "true or false", "string": "a text", "null": "nothing"}[kind]


def _bounds(schema: Mapping[str, Any]) -> str:
    """The bounds of a number in words; a whole number below 8 is one of at most 7."""
    least, above, most = schema.get("minimum"), schema.get("exclusiveMinimum"), schema.get("maximum")
    below = schema.get("exclusiveMaximum")
    if below is not None and schema["type"] == "integer":
        most, below = below - 1, None
    step = f"and a multiple of {schema['multipleOf']}" if "multipleOf" in schema else ""
    if least is not None and most is not None:
        return f"from {least} to {most} {step}".rstrip()
    ends = (("of at least", least), ("above", above), ("at most", most), ("below", below))
    return " and ".join(f"{word} {end}" for word, end in ends if end is not None)


def _parted(name: str, value: Any) -> Any:
    """`a house|a boat` as the two texts that it means, where a setting takes several."""
    if isinstance(value, str) and _schema().get(name, {}).get("type") == "array":
        return [part.strip() for part in value.split("|") if part.strip()]
    return value


def _quoted(value: Any) -> str:
    """A value as a part of a sentence: on one line, and not long."""
    text = " ".join(str(value).split()) or "empty"
    return text if len(text) <= 60 else f"{text[:40]}… ({len(text)} characters)"
