"""Find runs below a path, and read the config of a run."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from shlex import quote

from diffusecli.files.paths import exists, look_again
from diffusecli.prompts.config import PLAIN, Config
from diffusecli.prompts.config_files import output_dir_of, read_config
from diffusecli.runs.run_dir import RunDir
from diffusecli.runs.sample_files import SAMPLE_ENDINGS, journal_path
from diffusecli.system.errors import InputError, sentence
from diffusecli.system.notices import some_of

_MOST_CONFIGS = 100  # that are searched for an output_dir


def config_of(run: RunDir, *, model: str | None = None, trust_remote_code: bool = False) -> Config:
    """The config of a run, with another name of its base model if given. The run may have been moved, or come from a stranger.

    So the chat template is the run's own copy, never another file on this machine, and only the caller decides whether code that
    comes with the model may run.
    """
    config = on_base(recorded_config(run), model)
    own = config.chat_template not in (None, PLAIN)
    if own and run.chat_template.is_symlink():
        raise InputError(f"{run.chat_template}: is a link to another file. Replace it with a copy of the template")
    return config.model_copy(update={
        "output_dir": str(run.path), "chat_template": str(run.chat_template) if own else config.chat_template,
        "trust_remote_code": trust_remote_code,
    })  # fmt: skip


def recorded_config(run: RunDir) -> Config:
    """The config as the run recorded it, with the output_dir that it had then. Raises `InputError`. To use a run, read `config_of`."""
    if not exists(run.path):
        raise missing_run(run.path)
    if not run.config.is_file():
        remedy = "Use --adapter for an adapter without a run" if run.has_adapter else "Use a run directory"
        raise InputError(f"{run.path}: not a run (config.yaml is missing). {remedy}")
    return read_config(run.config, kept=True)


def on_base(config: Config, model: str | None) -> Config:
    """The config with another base model, if given. The config's revision applies only to its own model."""
    return config if model in (None, config.model) else config.model_copy(update={"model": model, "revision": None})


def missing_run(path: Path, allowed: str = "a run directory") -> InputError:
    """The error for a run or a file that does not exist: its unfinished sampling, the most similar name, or the runs next to it."""
    if path.suffix in SAMPLE_ENDINGS and exists(journal_path(path)):
        return InputError(f"{path}: sampling is not finished. Run the same `diffuse sample` command again")
    if (config := config_of_future(path)) is not None:
        return _untrained(path, config)
    try:
        beside = [str(folder) for folder in sorted(path.parent.iterdir()) if folder.is_dir() and _is_run(folder)]
    except OSError:
        beside = []
    runs = f"runs in {path.parent}: {some_of(beside)}" if beside else f"use {allowed}"
    return InputError(f"{path}: does not exist. {sentence(look_again(path, runs))}")


def find_runs(path: str | Path) -> list[RunDir]:
    """The run itself, or every run below a folder, by name. Raises `InputError` when there is none."""
    path = Path(path)
    if not path.is_dir():
        raise (
            InputError(f"{path}: is a file. Use a run directory or a folder of runs")
            if path.is_file()
            else missing_run(path, "a run directory or a folder of runs")
        )
    found = [RunDir(folder) for folder in [path, *sorted(p for p in path.rglob("*") if p.is_dir())] if _is_run(folder)]
    if not found and (config := config_of_future(path)) is not None:
        raise _untrained(path, config)
    if not found:
        raise InputError(f"{path}: contains no run. Create one with `diffuse train` or `diffuse sample`")
    return found


def config_of_future(folder: Path) -> Path | None:
    """The config, here or in `configs`, that trains into this folder."""
    there = (file for pattern in ("*.yaml", "*.yml", "configs/*.yaml", "configs/*.yml") for file in sorted(Path().glob(pattern)))
    for file in islice(there, _MOST_CONFIGS):
        output = output_dir_of(file)
        if output is not None and output.resolve() == folder.resolve():
            return file
    return None


def _untrained(folder: Path, config: Path) -> InputError:
    return InputError(f"{folder}: is not trained yet. Run `diffuse train {quote(str(config))}` first")


def newest_run(path: str | Path) -> RunDir:
    """The run below `path` with the newest adapter."""
    trained = [run for run in find_runs(path) if run.has_adapter]
    if not trained:
        raise InputError(f"{path}: contains no trained run. Create one with `diffuse train`, or use a config")
    return max(trained, key=lambda run: (run.path / "adapter_model.safetensors").stat().st_mtime_ns)


def _is_run(folder: Path) -> bool:
    run = RunDir(folder)
    return run.manifest.is_file() or run.config.is_file() or bool(run.sample_files())
