"""The run directory: names, atomic writes, manifest, finding the latest run.

Knows what is kept where; knows nothing of how any of it is made.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any, Literal

from diffusecli.checkout import git_state
from diffusecli.config import PLAIN, Config, read_config
from diffusecli.errors import InputError, MachineError, cannot_write
from diffusecli.locks import made_folder, scratch_file
from diffusecli.places import exists, look_again
from diffusecli.prompt import Prompt

MODES = ("untuned", "lora")
FORMATS = {"json": ".json", "jsonl": ".jsonl", "counts": ".json", "csv": ".csv"}
"""How samples are written -> how such files end."""

SAMPLE_ENDINGS = tuple(dict.fromkeys(FORMATS.values()))


@dataclass(frozen=True)
class Iteration:
    """A line of `metrics.jsonl`: one pass over the training prompts, figures as seen before each prompt's step."""

    iteration: int  # from 1
    of: int
    step: int  # optimiser steps so far
    loss: float  # summed over prompts, nats
    optimal: float  # the least it can be: the summed entropy of the paths' weights
    kl: dict[str, float]  # alias -> exact KL(target || model), nats
    on_target: dict[str, float]  # alias -> exact probability of answering with any target
    retention_kl: float | None  # mean KL(base || tuned) over the instructions trained on, nats per token
    learning_rate: float  # of the first step
    gradient_norm: float  # mean over steps, before clipping
    tokens: int  # fed since training began
    seconds: float  # since training began
    memory_mb: int  # the most the process held so far
    test_kl: dict[str, float] = field(default_factory=dict)  # as kl, of test prompts not trained on, every eval_every iterations
    test_on_target: dict[str, float] = field(default_factory=dict)


_PACKAGES = ("diffuse-lm", "torch", "transformers", "peft", "numpy")


@dataclass(frozen=True)
class RunDir:
    """A folder with the original's file names (`gen.json`, `config.yaml`, …) and this project's beside them."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved config of the run."""
        return self.path / "config.yaml"

    @property
    def prompts(self) -> Path:
        """`{alias: prompt}` of every train and test prompt."""
        return self.path / "prompts.json"

    @property
    def chat_template(self) -> Path:
        """The chat template that its config names, where it is none of the model's own."""
        return self.path / "chat_template.jinja"

    @property
    def manifest(self) -> Path:
        """What made the run: versions, seed, hashes, figures."""
        return self.path / "run.json"

    @property
    def metrics(self) -> Path:
        """A JSON line per iteration."""
        return self.path / "metrics.jsonl"

    @property
    def lock(self) -> Path:
        """What a training holds while it works there."""
        return self.path / ".lock"

    @property
    def card(self) -> Path:
        """The model card, Markdown."""
        return self.path / "README.md"

    @property
    def owner(self) -> RunDir:
        """The run that a checkpoint is of; else the folder itself."""
        return RunDir(self.path.parent) if self.path.name.startswith("checkpoint-") else self

    @property
    def has_adapter(self) -> bool:
        """Whether training got as far as an adapter."""
        return exists(self.path / "adapter_config.json") and exists(self.path / "adapter_model.safetensors")

    @property
    def adapter_sha256(self) -> str:
        """What tells this adapter from every other."""
        with (self.path / "adapter_model.safetensors").open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def samples(self, mode: str, ending: str = ".json") -> Path:
        """Where `diffuse sample` writes by default."""
        return self.path / f"gen.{mode}{ending}"

    def asked(self, mode: str, ending: str = ".json") -> Path:
        """Where answers to `diffuse sample --request` go: beside the samples, and not for `evaluate`."""
        return self.path / f"asked.{mode}{ending}"

    def all_sample_files(self) -> dict[str, list[Path]]:
        """The files of each mode that has been sampled, newest first; what training left in `gen.json` counts as lora."""
        files = {}
        for mode in MODES:
            there = [path for ending in SAMPLE_ENDINGS if (path := self.samples(mode, ending)).is_file()]
            if mode == "lora" and (self.path / "gen.json").is_file():
                there.append(self.path / "gen.json")
            if there:
                files[mode] = sorted(there, key=lambda path: path.stat().st_mtime_ns, reverse=True)
        return files

    def sample_files(self) -> dict[str, Path]:
        """The newest file of each mode that has been sampled."""
        return {mode: files[0] for mode, files in self.all_sample_files().items()}

    def discard_trained(self) -> None:
        """Remove the adapter, what tells of it and the tuned model's samples, before another training takes their place."""
        adapter = [self.path / "adapter_config.json", self.path / "adapter_model.safetensors"]
        for path in (self.manifest, self.card, self.metrics, self.chat_template, *adapter):
            path.unlink(missing_ok=True)
        for samples in (self.path / "gen.json", *(self.samples("lora", ending) for ending in SAMPLE_ENDINGS)):
            for path in (samples, meta_path(samples), journal_path(samples)):
                path.unlink(missing_ok=True)

    def read_manifest(self) -> dict[str, Any]:
        """The manifest, or {} when there is none, as in runs of the original."""
        return read_json_mapping(self.manifest) if self.manifest.is_file() else {}

    def read_prompts(self) -> dict[str, Any]:
        """What `prompts.json` keeps, or {} when there is none; runs of the original kept tokens."""
        return read_json_mapping(self.prompts) if self.prompts.is_file() else {}


def config_of(run: RunDir, *, model: str | None = None, trust_remote_code: bool = False) -> Config:
    """The config a run keeps, with another name of its base model if one is given; the run may have been moved since, or come from a stranger.

    So its chat template is the copy that it keeps, no other file of this machine, and whether code that comes with the model may run
    is said by whoever uses the run.
    """
    if not run.config.is_file():
        remedy = "name an adapter alone with --adapter" if run.has_adapter else "name a run directory"
        raise InputError(f"{run.path}: no run there (config.yaml is missing), {remedy}")
    config = on_base(read_config(run.config, kept=True), model)
    own = config.chat_template not in (None, PLAIN)
    if own and run.chat_template.is_symlink():
        raise InputError(f"{run.chat_template}: leads to another place, put the template itself there")
    return config.model_copy(update={
        "output_dir": str(run.path), "chat_template": str(run.chat_template) if own else config.chat_template,
        "trust_remote_code": trust_remote_code,
    })  # fmt: skip


def on_base(config: Config, model: str | None) -> Config:
    """The config with this base model where one is named; the config's revision is of its own model."""
    return config if model in (None, config.model) else config.model_copy(update={"model": model, "revision": None})


def journal_path(samples: Path) -> Path:
    """Where samples stand until all are there: `gen.lora.json` -> `gen.lora.partial.jsonl`."""
    return samples.with_name(_bare(samples) + ".partial.jsonl")


def _bare(samples: Path) -> str:
    return samples.name.removesuffix(samples.suffix) if samples.suffix in SAMPLE_ENDINGS else samples.name


def meta_path(samples: Path) -> Path:
    """Where the settings of a sample file stand: `gen.lora.json` -> `gen.lora.meta.json`."""
    return samples.with_name(_bare(samples) + ".meta.json")


def read_meta(samples: Path) -> dict[str, Any]:
    """How a file of samples was made; {} where that is not told, or told of a file in another format."""
    from diffusecli.samples import MOST_BYTES

    meta = read_json_mapping(meta_path(samples), MOST_BYTES) if meta_path(samples).is_file() else {}  # it names unfinished answers
    return meta if meta.get("file", samples.name) == samples.name else {}


def prompts_as_json(prompts: Iterable[Prompt]) -> dict[str, Any]:
    """`{alias: prompt}`, as `prompts.json` and the sample files' settings keep it."""
    return {prompt.alias: {"alias": prompt.alias, **json.loads(prompt.to_json())} for prompt in prompts}


def find_runs(path: str | Path) -> list[RunDir]:
    """The run itself, or every run below a folder, by name. Raises `InputError` when there is none."""
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder, {look_again(path, 'name a run directory or a folder of them')}")
    found = [RunDir(folder) for folder in [path, *sorted(p for p in path.rglob("*") if p.is_dir())] if _is_run(folder)]
    if not found:
        raise InputError(f"{path}: no run there, make one with `diffuse train` or `diffuse sample`")
    return found


def newest_run(path: str | Path) -> RunDir:
    """The run below `path` with an adapter that was written last."""
    trained = [run for run in find_runs(path) if run.has_adapter]
    if not trained:
        raise InputError(f"{path}: no trained run there, make one with `diffuse train` or name a config")
    return max(trained, key=lambda run: (run.path / "adapter_model.safetensors").stat().st_mtime_ns)


def _is_run(folder: Path) -> bool:
    run = RunDir(folder)
    return run.manifest.is_file() or run.config.is_file() or bool(run.sample_files())


def read_json_mapping(path: Path, most_bytes: int | None = None) -> dict[str, Any]:
    """A JSON file that holds a mapping; raises `InputError` when it does not."""
    from diffusecli.documents import MOST_BYTES, read_document

    document, problems = read_document(path, most_bytes or MOST_BYTES)
    if document is None:
        raise InputError.of(problems)
    if not isinstance(document.data, dict):
        raise InputError(f"{path}: must hold a mapping, correct the file")
    return document.data


@contextmanager
def atomic_write(path: Path, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Write text, or bytes, so that `path` holds either what it held before or all of the new.

    Raises `MachineError` when the disk takes no more or the folder is not writable.
    """
    try:
        with made_folder(path.parent):
            descriptor, scratch = scratch_file(path)
            try:
                with os.fdopen(descriptor, mode, encoding="utf-8" if mode == "w" else None) as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                    scratch.chmod(0o666 & ~_umask())
                    os.replace(scratch, path)
            except BaseException:
                scratch.unlink(missing_ok=True)
                raise
            sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error


def append_line(path: Path, line: bytes) -> None:
    """Add a line to a file, all of it or nothing; raises `MachineError`."""
    try:
        with path.open("ab", buffering=0) as file:
            size = file.tell()
            rest = memoryview(line)
            try:
                while rest:  # a disk that is nearly full takes a part, and says with the next why no more
                    rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(size)
                raise
    except OSError as error:
        raise cannot_write(path, error) from error


def require_no_link(path: Path) -> None:
    """Raises `InputError` for a file that is written in place and is a link: what it points to is somebody else's."""
    if path.is_symlink():
        raise InputError(f"{path}: is a link to {path.readlink()}, which is not ours to write; remove the link")


def require_writable(folder: Path) -> None:
    """Find out before the work and not after whether the folder can be made and written; leaves no trace. Raises `MachineError`."""
    try:
        with made_folder(folder), tempfile.TemporaryFile(dir=folder):
            pass
    except FileNotFoundError:  # another process that tried the same took the folder away: it can be made
        pass
    except OSError as error:
        raise cannot_write(folder, error) from error


def require_place(folder: Path) -> None:
    """Raises `MachineError` for a folder that cannot be made or written, as far as that shows without making it."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        raise cannot_write(folder, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
    if not os.access(there, os.W_OK | os.X_OK):
        raise cannot_write(folder, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def require_space(folder: Path, megabytes: int) -> None:
    """Raises `MachineError` when the disk is too full for what will be written."""
    free = shutil.disk_usage(folder).free // 1_000_000
    if free < megabytes:
        raise MachineError(f"{folder}: {free} MB free, {megabytes} MB needed, free some or name another folder")


def write_text(path: Path, text: str) -> None:
    """Write a whole file atomically."""
    with atomic_write(path) as file:
        file.write(text)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically, as a stream."""
    with atomic_write(path) as file:
        json.dump(value, file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def mark_newest(path: Path, others: Iterable[Path]) -> None:
    """Let `path` be the last that was written by its time too, should the clock have been set back since the others were."""
    latest = max((other.stat().st_mtime_ns for other in others if other.is_file() and other != path), default=0)
    if path.stat().st_mtime_ns <= latest:
        os.utime(path, ns=(latest + 1, latest + 1))


def move_into(folder: Path, sources: Iterable[Path]) -> None:
    """Put finished files in place under their own names, each by an atomic rename."""
    for source in sources:
        with source.open("rb+") as file:
            os.fsync(file.fileno())
        source.chmod(0o666 & ~_umask())
        os.replace(source, folder / source.name)
    sync_folder(folder)


def put_folder(finished: Path, place: Path) -> None:
    """Put a finished folder in place by a rename; what was there is moved to beside `finished`, for its owner to remove."""
    for path in finished.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        path.chmod(0o666 & ~_umask())
    finished.chmod(0o777 & ~_umask())
    if place.exists():
        os.replace(place, finished.with_name("before"))
    os.replace(finished, place)
    sync_folder(place.absolute().parent)


def environment() -> dict[str, Any]:
    """What a reader of the manifest needs to repeat the run: versions, platform, git state, time."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
        "git": git_state(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync_folder(folder: Path) -> None:
    """Make the renames in a folder last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
