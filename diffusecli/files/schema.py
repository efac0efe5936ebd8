"""Turn pydantic's errors for a file into `Problem`s with a fix.

Knows documents and pydantic; knows nothing of what prompts and configs mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from diffusecli.files.documents import Document
from diffusecli.files.positions import Location
from diffusecli.system.errors import Problem, did_you_mean, nearest

_NEAR = 0.75  # similarity of a key suggested from another place
_MOST_FINDINGS = 1000  # per file: a million wrong keys are one mistake

_KINDS = {
    "string_type": "a string",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "int_parsing": "a whole number",
    "float_parsing": "a number",
    "bool_parsing": "true or false",
    "int_from_float": "a whole number",
    "finite_number": "a finite number",
}


def problems_of(document: Document, error: ValidationError, model: type[BaseModel]) -> Iterator[tuple[Problem, Location]]:
    """One `Problem` per place, at the wrong key or value, with its location.

    Pydantic reports each branch of a union separately. This joins their expectations into one message.
    """
    if document.data is None and not document.text.strip():
        yield document.problem((), "the file is empty", "write keys and values into it"), ()
        return
    by_place: dict[Location, list[Any]] = {}
    for finding in error.errors(include_url=False, include_context=False)[:_MOST_FINDINGS]:
        by_place.setdefault(_place(document.data, finding), []).append(finding)
    meant = _meant(by_place, model)
    for location, findings in by_place.items():
        if location in meant:
            continue  # the key is there, under a misspelt name
        inside = (other for other in by_place if len(other) > len(location) and other[: len(location)] == location)
        if isinstance(findings[0]["input"], dict | list | tuple) and any(inside):
            continue  # the mapping or list is right here; the error is inside
        yield document.problem(location, *_explain(document.written(location), findings, model)), location
    if error.error_count() > _MOST_FINDINGS:
        yield (
            document.problem((), f"has {error.error_count() - _MOST_FINDINGS} more errors", "fix the reported ones first"),
            (),
        )


def _meant(by_place: Mapping[Location, list[Any]], model: type[BaseModel]) -> set[Location]:
    """The missing keys that unknown keys beside them are misspellings of."""
    missing = {place for place, findings in by_place.items() if findings[0]["type"] == "missing"}
    unknown = [place for place, findings in by_place.items() if findings[0]["type"] == "extra_forbidden"]
    nearby = {(*place[:-1], nearest(str(place[-1]), _known(model, place[:-1]))) for place in unknown}
    return missing & nearby


def _place(data: Any, finding: Any) -> Location:
    """The error's location without the names of union branches. A missing key counts as a place."""
    place: list[str | int] = []
    for part in finding["loc"]:
        inside = isinstance(data, dict) and part in data
        if inside or (isinstance(data, list | tuple) and isinstance(part, int) and part < len(data)):
            data = data[part]
            place.append(part)
        elif finding["type"] == "missing":
            place.append(part)
    return tuple(place)


def _explain(location: Location, findings: list[Any], model: type[BaseModel]) -> tuple[str, str]:
    kind, value = findings[0]["type"], findings[0]["input"]
    name = _dotted(location)
    if kind == "extra_forbidden":
        return f"unknown key '{location[-1]}'", _where_it_belongs(str(location[-1]), model, location[:-1])
    if kind == "missing":
        return f"the key '{name}' is missing", "add it"
    if kind == "string_too_short":
        return f"'{name}' is empty", "write text"
    expected = " or ".join(dict.fromkeys(_expectation(finding) for finding in findings)).replace(" or must be ", " or ")
    subject = f"'{name}'" if name else "the file"
    return f"{subject} {expected}, not {_short(value)}", _hint(location, kind, value)


def _hint(location: Location, kind: str, value: Any) -> str:
    """How to write the intended value."""
    is_list = kind in ("list_type", "tuple_type")
    bare = _bare(value) if isinstance(value, str) and kind != "string_type" else None
    hints = (
        (value is None and bool(location), "leave it out or give it a value"),
        (kind == "string_type" and isinstance(value, bool | int | float), "put quotes around it"),
        (is_list and isinstance(value, str), "put brackets around it"),
        (is_list and isinstance(value, dict), "write its keys as a list, and its numbers as a second list (weights)"),
        (
            not location and isinstance(value, list) and any(isinstance(item, dict) for item in value),
            "write each into a separate file",
        ),
        (bare is not None, f"write {bare} without quotes"),
        (isinstance(value, float) and value.is_integer(), f"write {value:.0f}" if isinstance(value, float) else ""),
    )
    return next((hint for fits, hint in hints if fits), "")


def _bare(text: str) -> str | None:
    """The number or boolean in a string. None if it holds neither."""
    word = text.strip().lower().removesuffix("%").strip()
    if word in ("true", "false"):
        return word
    return word if re.fullmatch(r"-?\d+(\.\d+)?(e[+-]?\d+)?", word) else None


def _expectation(finding: Any) -> str:
    if finding["type"] in _KINDS:
        return f"must be {_KINDS[finding['type']]}"
    return str(finding["msg"]).removeprefix("Value error, ").removeprefix("Input ").replace("should be", "must be")


def _where_it_belongs(key: str, model: type[BaseModel], location: Location) -> str:
    """The most similar key of this place, else the places that have this key, one that ends in it, or a very similar one."""
    known = _known(model, location)
    if nearest(key, known) is None:
        nested = {f"{name}.{one}": one for name in _keys(model) if (inner := _inside(model, name)) for one in _keys(inner)}
        places = [place for place, one in nested.items() if one == key]
        places += [key] if location and key in _keys(model) else []
        places = places or [place for place, one in nested.items() if one.endswith(f"_{key}")]
        if not places and (near := nearest(key, list(nested.values()), _NEAR)) is not None:
            places = [place for place, one in nested.items() if one == near]
        if places:
            return f"did you mean {' or '.join(map(repr, places))}{' of the file itself' if places == [key] else ''}?"
    return did_you_mean(key, known)


def _known(model: type[BaseModel], location: Location) -> list[str]:
    """The keys that may be at this place."""
    here: type[BaseModel] | None = model
    for part in location:
        here = here and (_inside(here, part) if isinstance(part, str) else here)  # an item of a list has the list's model
    return _keys(here) if here else []


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items() if not field.exclude]


def _inside(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    """The model of a key's value, if it has one."""
    field = model.model_fields.get(key)
    return next((kind for kind in _classes(field.annotation if field else None) if issubclass(kind, BaseModel)), None)


def _classes(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _classes(argument)


def _dotted(location: Location) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) > 10**30:
        return "a number of more than thirty digits"
    text = {dict: "a mapping", list: "a list", type(None): "nothing"}.get(type(value)) or repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
