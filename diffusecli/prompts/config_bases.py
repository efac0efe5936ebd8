"""`base: other.yaml` in a config: the settings of the other file, with those of this one in their place.

Mappings (`alg_config`, `lora`) are joined key by key; lists and single values are replaced. Problems are reported in the file that has the
value. Knows which settings hold paths, not what others mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusecli.files.documents import Document, read_document
from diffusecli.files.paths import at_home, exists, find, look_again, real, spread, wrong_as_written
from diffusecli.files.positions import Location
from diffusecli.prompts.config import PLAIN
from diffusecli.system.errors import Problem

BASE = "base"
"""The key that names the other file."""
_PATHS: tuple[Location, ...] = (("train_prompts",), ("test_prompts",), ("retain", "prompts"), ("chat_template",), ("ckpt_dir",))
"""Settings that are searched for beside the file that has them."""


@dataclass(frozen=True)
class Layered(Document):
    """A config joined with its bases. Its own file and text are those of the config itself."""

    layers: tuple[Document, ...] = ()  # the config as written, then its bases, the nearest one first
    spread: tuple[
        Mapping[Location, Sequence[int]], ...
    ] = ()  # of each layer: lists with patterns -> the item of each of their files

    def problem(self, location: Location, message: str, remedy: str = "", **more: Any) -> Problem:
        """A `Problem` in the file that has the value at `location`; in the config itself if none has it."""
        layer, place = self._origin(location)
        return layer.problem(place, message, remedy, **more)

    def written(self, location: Location) -> Location:
        """As in the file that has the value: a pattern in a list is one item there, and several files here."""
        return self._origin(location)[1]

    def _origin(self, location: Location) -> tuple[Document, Location]:
        """The file that has the value, and its place there. Lists are replaced as a whole, so all items are in the same file."""
        depth = next((place for place, part in enumerate(location) if isinstance(part, int)), len(location))
        key, rest = location[:depth], location[depth:]
        for layer, spread_lists in zip(self.layers, self.spread, strict=True):
            if layer.has(key):
                items = spread_lists.get(key, ())
                rest = (items[rest[0]], *rest[1:]) if rest and isinstance(rest[0], int) and rest[0] < len(items) else rest
                return layer, (*key, *rest)
        return self.layers[0], location


def with_bases(document: Document, path: Path) -> tuple[Document, list[Problem]]:
    """The config joined with its bases, and the problems that hide one of them. `path` is that of its file."""
    layers, folders = [document], [path.parent]
    seen = {real(path): path.name}
    while isinstance(layers[-1].data, dict) and BASE in layers[-1].data:
        layer, named = layers[-1], layers[-1].data.pop(BASE)
        readable = isinstance(named, str) and not wrong_as_written(named)[0]
        found = find(at_home(named) if readable else "", folders[-1])
        if (wrong := _why_no_base(named, found.place, seen)) is not None:
            return document, [layer.problem((BASE,), *wrong)]
        base, problems = read_document(found.place, name=found.name)
        if base is None:
            return document, problems
        if not isinstance(base.data, dict):
            return document, [base.problem((), "the file must be a mapping of keys to values", "correct the file")]
        base.data.pop("$schema", None)
        layers.append(base)
        folders.append(found.place.parent)
        seen[real(found.place)] = found.place.name
    if len(layers) == 1:
        return document, []
    joined: dict[str, Any] = {}
    spreads: list[dict[Location, list[int]]] = []
    for layer, folder in zip(reversed(layers), reversed(folders), strict=True):
        data, items = (layer.data, {}) if folder == path.parent else _located(layer.data, folder)
        joined = _joined(joined, data)
        spreads.insert(0, items)
    return Layered(document.path, document.text, joined, tuple(layers), tuple(spreads)), []


def _why_no_base(named: Any, place: Path, seen: Mapping[Path, str]) -> tuple[str, str] | None:
    """Why a value of `base` names no config, and the remedy. `seen` holds the names of the config and its bases so far, in order."""
    if not isinstance(named, str) or not named:
        return "'base' must be the path of a config", "write base: other.yaml"
    message, remedy = wrong_as_written(named)
    reasons = (
        (bool(message), f"{named}: {message}", remedy),
        (real(place) in seen, f"the bases form a circle: {_circle(real(place), seen)}", "name another file"),
        (place.suffix not in (".yaml", ".yml"), f"{named} is not a config", "use a .yaml file"),
        (not exists(place), f"the base {named} does not exist", look_again(named, "check the path", other_than=tuple(seen))),
    )
    return next(((reason, fix) for wrong, reason, fix in reasons if wrong), None)


def _circle(again: Path, seen: Mapping[Path, str]) -> str:
    """The bases from a file back to it: a.yaml -> b.yaml -> a.yaml."""
    files = list(seen)
    way = files[files.index(again) :] if again in seen else []
    return " -> ".join(seen[file] for file in [*way, *way[:1]])


def _joined(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Own values in place of the base's; mappings key by key.

    >>> _joined({"a": 1, "b": {"c": 2, "d": [3]}}, {"b": {"d": []}})
    {'a': 1, 'b': {'c': 2, 'd': []}}
    """
    both = {key: _joined(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
            for key, value in own.items()}  # fmt: skip
    return {**base, **both}


def _located(data: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], dict[Location, list[int]]]:
    """Settings of a base in another folder: files that are beside the base, not in the working directory, get their path from here.

    Also returns, for each list of paths, which item each of its files comes from.
    """
    items: dict[Location, list[int]] = {}

    def at(key: str, value: Any, location: Location = ()) -> Any:
        here = (*location, key)
        if here == ("retain",) and isinstance(value, dict):
            return {inner: at(inner, each, here) for inner, each in value.items()}
        if here not in _PATHS:
            return value
        if isinstance(value, list):
            files = [
                (place, name)
                for place, text in enumerate(value)
                for name in (spread(at_home(text), folder) if _is_path(text) else [text])
            ]
            items[here] = [place for place, _ in files]
            return [name for _, name in files]
        return spread(at_home(value), folder)[0] if _is_path(value) else value

    return {key: at(key, value) for key, value in data.items()}, items


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and value not in ("", PLAIN, "builtin") and not wrong_as_written(value, readable=True)[0]
