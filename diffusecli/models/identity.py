"""Identify a model by its weights, not by its path or name.

It reads a model's files without loading the model, and is independent of adapters and runs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusecli.models.builtin import BUILTIN_MODELS, builtin_folder
from diffusecli.system.errors import DiffuseError

_SAMPLE = 4096  # bytes at each end of a tensor
_PIECES = 64  # number of samples from a GGUF file
_END_BYTES = 1_000_000  # bytes per file end, in fingerprints of earlier versions
_ONE_FILE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_HOW_IT_WAS_WRITTEN = {"transformers_version", "torch_dtype", "dtype", "use_cache"}
_NOT_IN_EARLIER = ("dtype", "torch_dtype", "transformers_version")


@dataclass(frozen=True)
class Identity:
    """The identity of a model's weights."""

    revision: str  # recorded in runs: a hub commit, the hash of a built-in model, otherwise the fingerprint
    fingerprint: str = ""  # of the files' content; empty if unknown
    files: tuple[Path, ...] = ()  # the weight files in its folder, for fingerprints of earlier versions
    config: Mapping[str, Any] = field(default_factory=dict)  # as loaded, for fingerprints of earlier versions

    def matches(self, recorded: Mapping[str, Any]) -> bool:
        """Whether a manifest or a checkpoint recorded these weights, or recorded none."""
        revision = recorded.get("model_revision")
        if revision is None or revision == self.revision:
            return True
        if self.fingerprint and self.fingerprint in (revision, recorded.get("model_fingerprint")):
            return True
        called = str(recorded.get("model", ""))
        return bool(self.config) and revision in (self._earlier(called, self.files), self._earlier(called, ()))

    def _earlier(self, called: str, files: Iterable[Path]) -> str:
        """The fingerprint of earlier versions for this model under this name. It included the path, and for hub models no files."""
        place = str(Path(called).parent) if called.endswith(".gguf") else called
        config = {key: value for key, value in self.config.items() if key not in _NOT_IN_EARLIER} | {"_name_or_path": place}
        found = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
        for path in files:
            with path.open("rb") as file:
                size = path.stat().st_size
                found.update(f"{path.name} {size}".encode() + file.read(_END_BYTES))
                file.seek(max(0, size - _END_BYTES))
                found.update(file.read())
        return _fingerprint(found)


def has_weights_of(name: str, recorded: Mapping[str, Any]) -> bool:
    """Whether a model on this machine, not loaded, has the weights that a manifest recorded; False if unknown."""
    if recorded.get("model_revision") is None:
        return False
    if name in BUILTIN_MODELS:
        return Identity(_revision(name, Path(name), "")).matches(recorded)
    try:
        place = Path(name)
        fingerprint = fingerprint_of(place)
        return Identity(_revision(name, place, fingerprint), fingerprint).matches(recorded)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def identify(name: str, place: Path | None, config: Any) -> Identity:
    """The identity of a loaded model: `place` is its folder or .gguf file, `config` its transformers config."""
    if place is None:
        found = hashlib.sha256(json.dumps(_meaning(config.to_dict()), sort_keys=True, default=str).encode())
        return Identity(_fingerprint(found), config=config.to_dict())
    fingerprint = fingerprint_of(place)
    folder = place if place.is_dir() else place.parent
    files = tuple(sorted([*folder.glob("*.safetensors"), *folder.glob("*.gguf")]))
    return Identity(_revision(name, place, fingerprint), fingerprint, files, config.to_dict())


def _revision(name: str, place: Path, fingerprint: str) -> str:
    builtin = name if name in BUILTIN_MODELS else next((n for n in BUILTIN_MODELS if _is_builtin(n, fingerprint)), None)
    if builtin is not None:
        return f"gguf sha256 {BUILTIN_MODELS[builtin].gguf_sha256}"
    in_a_cache = re.fullmatch(r".*/snapshots/([0-9a-f]{40})", str(place.resolve()))
    return in_a_cache[1] if in_a_cache else fingerprint


def _is_builtin(name: str, fingerprint: str) -> bool:
    """Whether these are the weights of the converted model in the cache, if any."""
    try:
        return fingerprint_of(builtin_folder(name)) == fingerprint
    except (DiffuseError, OSError, ValueError, LookupError):
        return False


def fingerprint_of(place: Path) -> str:
    """A hash of a model folder or a GGUF file: settings, tensors, and samples of their bytes (all bytes would take seconds).

    It does not depend on file names or on the distribution of tensors over files.
    """
    found = hashlib.sha256()
    if place.is_file():
        size = place.stat().st_size
        found.update(f"gguf {size}".encode())
        with place.open("rb") as file:
            for piece in range(_PIECES):
                file.seek(max(0, size - _SAMPLE) * piece // (_PIECES - 1))
                found.update(file.read(_SAMPLE))
        return _fingerprint(found)
    config = json.loads((place / "config.json").read_text(encoding="utf-8"))
    found.update(json.dumps(_meaning(config), sort_keys=True).encode())
    for tensor, content in sorted(pair for path in _weight_files(place) for pair in _tensors(path)):
        found.update(tensor.encode() + content)
    return _fingerprint(found)


def _fingerprint(found: Any) -> str:
    return f"fingerprint sha256 {found.hexdigest()}"


def _meaning(config: Any) -> Any:
    """A config.json without paths, versions and runtime settings."""
    if isinstance(config, list):
        return [_meaning(value) for value in config]
    if not isinstance(config, dict):
        return config
    return {k: _meaning(v) for k, v in config.items() if not str(k).startswith("_") and k not in _HOW_IT_WAS_WRITTEN}


def _weight_files(folder: Path) -> list[Path]:
    """The files that transformers loads; others are ignored."""
    if (folder / _ONE_FILE).is_file():
        return [folder / _ONE_FILE]
    if (folder / _INDEX).is_file():
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        return [folder / name for name in sorted(set(index["weight_map"].values()))]
    return sorted(folder.glob("*.safetensors"))


def _tensors(path: Path) -> Iterator[tuple[str, bytes]]:
    """Each tensor of a safetensors file: name, type and shape as text, and a hash of both its ends."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for name, about in header.items():
            begin, end = (8 + length + offset for offset in about["data_offsets"])
            file.seek(begin)
            content = hashlib.sha256(file.read(min(_SAMPLE, end - begin)))
            file.seek(max(begin, end - _SAMPLE))
            content.update(file.read(min(_SAMPLE, end - begin)))
            yield f"{name} {about['dtype']} {about['shape']}", content.digest()
