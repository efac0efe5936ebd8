"""`diffuse train`: its options, the plan, and the figures of the finished run."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffusecli.cli.printing import MAIN_PROCESS, notice, print_line, progress_console, quiet_libraries
from diffusecli.system import terminal
from diffusecli.system.collector import collector_off
from diffusecli.system.errors import InputError

_FAR = 0.1
"""Nats: answers of a model with a larger KL are clearly off."""

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusecli.prompts.config import Config
    from diffusecli.training.record import Trained


def train(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="Config of the experiment, e.g. configs/quickstart.yaml.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Without CONFIG: base model by name, folder, .gguf file or Hugging Face id.")
    ] = None,
    prompts: Annotated[
        list[Path] | None, typer.Option("--prompt", metavar="FILE", help="Without CONFIG: prompt file or folder; may be repeated.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="DIR", help="Without CONFIG: folder of the run.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. alg_config.n_iters=10; may be repeated."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a finished run in the output folder.")] = False,
    more: Annotated[
        int | None, typer.Option("--more", min=1, metavar="N", help="Continue a finished run for N more iterations.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved config and the plan, and exit.")] = False,
) -> None:
    """Train a LoRA adapter to follow the target weights."""
    began = time.monotonic()
    chosen = _chosen(config, model, prompts, output, settings or ())
    quiet_libraries()
    with collector_off():
        from diffusecli.report.progress import TrainingProgress
        from diffusecli.verbs.train import plan
        from diffusecli.verbs.train import train as tune

    if dry_run:
        from diffusecli.report.tables import training_plan

        resolved = chosen.to_yaml()
        typer.echo(resolved if terminal.fits(resolved) else chosen.to_yaml(ascii_only=True))
        terminal.console().print(training_plan(plan(chosen, notice, force=force, more=more or 0)))
        return
    if not MAIN_PROCESS:
        tune(chosen, force=force, more=more or 0, report=lambda _: None, notice=lambda _: None)
        return
    with TrainingProgress(progress_console()) as progress:
        done = tune(chosen, force=force, more=more or 0, report=progress, watch=progress.step, notice=notice)
    again = f"diffuse train {shlex.quote(str(done.run.config if settings or config is None else config))}"
    _print_figures(done, f"{again} --more {more or chosen.alg_config.n_iters}", time.monotonic() - began)


def _chosen(
    config: Path | None, model: str | None, prompts: list[Path] | None, output: Path | None, settings: Sequence[str]
) -> Config:
    """The config of the file, or one with the defaults for a model and prompts."""
    from diffusecli.prompts.config_files import config_from, read_config

    named = {"--model": model, "--prompt": prompts, "-o": output}
    if config is not None:
        if given := [name for name, value in named.items() if value]:
            raise InputError(f"{given[0]} does not go with a config. Use --set, e.g. --set model=… or --set output_dir=…")
        return read_config(config, settings)
    if missing := [name for name, value in named.items() if not value]:
        raise InputError(f"{missing[0]} is missing. Name a config, or a model, prompts and a folder with --model, --prompt and -o")
    paths = [str(path) for path in prompts or ()]
    return config_from({"model": model, "train_prompts": paths, "test_prompts": paths, "output_dir": str(output)}, settings)


def _print_figures(done: Trained, longer: str, seconds: float) -> None:
    """Print exact figures of each prompt (of many prompts by folder), the drift, the run directory, and what to do next.

    `longer` is the command that trains further, `seconds` the time of this command.
    """
    from diffusecli.evaluation.groups import MOST_LISTED
    from diffusecli.report.tables import trained_table

    if len(done.after.prompts) + len(done.test.prompts) > MOST_LISTED:
        terminal.console().print(trained_table(done.after, done.test, done.digests))
    else:
        _print_each(done)
    if done.retention_kl is not None:
        typer.echo(f"drift from the base model on held-out instructions: {done.retention_kl:.4f} nats per token")
    link = " in" if done.reason.startswith("finished") else ", after"
    print_line(f"{done.run.path}: {done.reason}{link} {done.seconds:.1f} s; the command took {seconds:.0f} s")
    path = shlex.quote(str(done.run.path))
    if (far := max(done.after.kl.values(), default=0.0)) > _FAR:
        notice(f"warning: KL {far:.3f} is far from the target. Train longer: `{longer}`. If that no longer helps, raise lora.r")
    sampled = done.run.sample_files()
    notice(f"next: `diffuse evaluate {path}`" if sampled else f"next: `diffuse sample {path}`, then `diffuse evaluate {path}`")


def _print_each(done: Trained) -> None:
    """Print a line per prompt. For several wordings, add their distances from the target."""
    from diffusecli.prompts.wording_names import split_alias
    from diffusecli.report.wording import median_and_worst, plus_minus

    trained = {prompt.digest: prompt.alias for prompt in done.after.prompts}
    for exact in (done.after, done.test):
        for place, (prompt, (kl, on_target)) in enumerate(zip(exact.prompts, exact.figures, strict=True)):
            copied = f" (trained on as {trained[prompt.digest]})" if prompt.digest in trained else " (not trained on)"
            kind = split_alias(prompt.alias)[1]
            note = copied if exact is done.test and not kind else ""
            tvds = [figures.tvd for figures in exact.wordings[place]] if exact.wordings else []
            worded = (
                f"; {len(tvds)} {'contexts' if kind == 'contexts' else 'wordings'}: {median_and_worst(tvds)}"
                if len(tvds) > 1
                else ""
            )
            error = exact.estimated.get(prompt.alias)
            found = f"exact KL {kl:.4f} nats" if error is None else f"estimated KL {plus_minus(kl, error)} nats"
            print_line(f"{prompt.alias}{note}: {found}, {100 * on_target:.2f} % on target{worded}")
