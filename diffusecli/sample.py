"""`diffuse sample`: draw answers from the base model or from a run's adapter, into the run directory.

Decides which config, which run and which file; `generations.py` draws and writes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from diffusecli.config import Config, read_config
from diffusecli.errors import InputError
from diffusecli.generations import Report, Sampled, generate
from diffusecli.models import load_adapter, load_configured
from diffusecli.prompt import read_prompts
from diffusecli.runs import RunDir, newest_run, require_writable
from diffusecli.sampling import SamplingSettings


def choose_config(config: Path | None, results: Path) -> tuple[Config, str]:
    """The named config, or that of the newest run below `results` (wherever it was moved); and a sentence that says which."""
    if config is not None:
        return read_config(config), f"config {config}"
    run = newest_run(results)
    return read_config(run.config).model_copy(update={"output_dir": str(run.path)}), f"newest run {run.path}"


def sample(
    config: Config, mode: str, settings: SamplingSettings, *, output: Path | None, report: Report, notice: Callable[[str], None]
) -> Sampled:
    """Draw from every test prompt and write `{prompt path: [text, …]}`.

    Raises `InputError` when the config has no test prompts or, in mode lora, no adapter of this very model.
    """
    if not config.test_prompts:
        raise InputError("test_prompts is empty: name at least one prompt to sample from")
    prompts = read_prompts(config.test_prompts)
    run = RunDir(Path(config.output_dir))
    if mode == "lora" and not run.has_adapter:
        raise InputError(f"{run.path}: no adapter there, run `diffuse train` first or use --mode untuned")
    path = output or run.samples(mode)
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is no ordinary file, name another one")
    base = load_configured(config, notice)
    require_writable(path.parent)
    if mode == "lora":
        run.require_trained_on(base.name, base.revision)
        load_adapter(base, run.path)
    return generate(base, prompts, settings, adapter=run if mode == "lora" else None, path=path, report=report)
