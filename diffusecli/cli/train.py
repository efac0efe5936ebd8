"""`diffuse train`: its options, the plan, and the figures of the finished run; several runs in turn."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffusecli.cli.printing import MAIN_PROCESS, is_verbose, notice, print_line, progress_console, quiet_libraries
from diffusecli.runs.run_dir import RunDir
from diffusecli.system import terminal
from diffusecli.system.collector import collector_off
from diffusecli.system.errors import InputError

_ROUNDED = 0.05
"""Seconds that are not shown."""
_FAR = 0.1
"""Nats: answers of a model with a larger KL are clearly off."""

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusecli.prompts.config import Config
    from diffusecli.training.record import Trained


def train(
    configs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="CONFIG", help="Configs of experiments, e.g. configs/quickstart.yaml; trained in turn."),
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
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE,…", help="Train a run with each value, in folders named by it; may be repeated."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a finished run in the output folder.")] = False,
    more: Annotated[
        int | None, typer.Option("--more", min=1, metavar="N", help="Continue a finished run for N more iterations.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the settings and the plan, and exit.")] = False,
) -> None:
    """Train a LoRA adapter to follow the target weights."""
    with collector_off():
        jobs = _jobs(configs or [], model, prompts, output, settings or (), sweep or ())
    if more is not None and any(option.startswith("alg_config.n_iters") for option in settings or ()):
        raise InputError(f"--set alg_config.n_iters has no effect with --more {more}. Leave it out")
    quiet_libraries()
    if dry_run:
        _show_plans(jobs, force=force, more=more or 0)
        return
    finished = [_train_one(job, force=force, more=more or 0, several=len(jobs) > 1) for job in jobs]
    if len(jobs) > 1 and MAIN_PROCESS:
        _show_runs(finished)


def _jobs(
    configs: Sequence[Path], model: str | None, prompts: list[Path] | None, output: Path | None, settings: Sequence[str], sweep: Sequence[str]
) -> list[Config]:  # fmt: skip
    """The runs to train: of each config, or of a model and prompts, with every combination of swept values."""
    from diffusecli.prompts.config_sweep import combinations
    from diffusecli.prompts.prompt_files import read_prompts

    swept = combinations(sweep)
    keys = {option.partition("=")[0].strip() for option in sweep}
    if twice := [option for option in settings if option.partition("=")[0].strip() in keys]:
        raise InputError(f"--set {twice[0]}: the same key is in --sweep. Keep one of them")
    jobs = []
    named: Sequence[Path | None] = configs or [None]
    for config in named:
        chosen = _chosen(config, model, prompts, output, settings)
        for one in swept:
            folder = Path(chosen.output_dir, one.name)
            inside = [*one.overrides, f"output_dir={json.dumps(str(folder))}"]
            jobs.append(_chosen(config, model, prompts, output, [*settings, *inside]) if sweep else chosen)
    if len(jobs) > 1:
        for job in jobs:  # a mistake in the last one is found before the first is trained
            read_prompts([*job.train_prompts, *job.test_prompts], job.made_by)
    folders = [job.output_dir for job in jobs]
    if same := next((folder for folder in folders if folders.count(folder) > 1), None):
        raise InputError(f"{same}: is the output_dir of two configs. Give each its own, e.g. output_dir: results/{{config}}")
    return jobs


def _chosen(
    config: Path | None, model: str | None, prompts: list[Path] | None, output: Path | None, settings: Sequence[str]
) -> Config:
    """The config of the file, or one with the defaults for a model and prompts."""
    from diffusecli.prompts.config_files import config_from, inspect_config
    from diffusecli.prompts.experiment import Experiment
    from diffusecli.training.preflight import model_problems

    named = {"--model": model, "--prompt": prompts, "-o": output}
    if config is not None:
        if given := [name for name, value in named.items() if value]:
            raise InputError(f"{given[0]} does not go with a config. Use --set, e.g. --set model=… or --set output_dir=…")
        inspected = inspect_config(config, settings)
        problems = (*inspected.problems, *model_problems(inspected), *Experiment.of(config, inspected).problems)
        if inspected.config is None or any(problem.severity == "error" for problem in problems):
            raise InputError.of(problem for problem in problems if problem.severity == "error")
        return inspected.config
    if missing := [name for name, value in named.items() if not value]:
        start = "nothing to train" if len(missing) == len(named) else f"{missing[0]} is missing"
        raise InputError(f"{start}. Name a config, or a model, prompts and a folder with --model, --prompt and -o")
    paths = [str(path) for path in prompts or ()]
    return config_from({"model": model, "train_prompts": paths, "test_prompts": paths, "output_dir": str(output)}, settings)


def _show_plans(configs: Sequence[Config], *, force: bool, more: int) -> None:
    """Print the settings that differ from the defaults (with --verbose all), then the plan. Of several runs, first the settings that all have."""
    with collector_off():
        from diffusecli.prompts.config import settings_as_yaml
        from diffusecli.prompts.config_sweep import shared_and_own, within
        from diffusecli.report.tables import training_plan
        from diffusecli.verbs.train import plan

    every, said = is_verbose(), set[str]()

    def once(text: str) -> None:
        if text not in said:
            notice(text)
        said.add(text)

    def show(fields: dict[str, Any]) -> None:
        text = settings_as_yaml(fields)
        typer.echo(text if terminal.fits(text) else settings_as_yaml(fields, ascii_only=True), nl=every)

    shared, each = shared_and_own([config.model_dump(mode="json") for config in configs])
    if not every:
        shared = within(configs[0].model_dump(mode="json", exclude_defaults=True), shared)
    if len(configs) > 1:
        typer.echo(f"# settings of all {len(configs)} runs")
    show(shared)
    if not every:
        typer.echo("# all others: defaults. --verbose shows them\n")
    for place, (config, own) in enumerate(zip(configs, each, strict=True)):
        if own:
            typer.echo(("\n" if place else "") + f"# run {place + 1}")
            show(own)
        terminal.console().print(training_plan(plan(config, once, force=force, more=more)))


def _train_one(config: Config, *, force: bool, more: int, several: bool) -> Path:
    """Train one run and print its figures. Of several, those that are finished are left as they are."""
    began = time.monotonic()
    with collector_off():
        from diffusecli.report.progress import TrainingProgress
        from diffusecli.training.start import is_complete
        from diffusecli.verbs.train import train as tune

    folder = Path(config.output_dir)
    if several:
        if not force and not more and is_complete(RunDir(folder)):
            notice(f"{folder}: is finished, skipped. --force trains it again")
            return folder
        notice(f"training {folder}")
    if not MAIN_PROCESS:
        tune(config, force=force, more=more, report=lambda _: None, notice=lambda _: None)
        return folder
    earlier = RunDir(folder).read_manifest().get("exact_kl", {}) if more and RunDir(folder).manifest.is_file() else {}
    with TrainingProgress(progress_console()) as progress:
        done = tune(config, force=force, more=more, report=progress, watch=progress.step, notice=notice)
    _print_figures(done, time.monotonic() - began, several=several)
    if worse := [alias for alias, kl in done.after.kl.items() if alias in earlier and kl > 1.1 * earlier[alias] + 1e-4]:
        notice(
            f"warning: {worse[0]}: KL rose from {earlier[worse[0]]:.4f} to {done.after.kl[worse[0]]:.4f}. Longer training, or a lower "
            "learning rate (--set alg_config.learning_rate=…) may bring it down"
        )
    if not several:
        path = shlex.quote(str(done.run.path))
        sampled = done.run.sample_files()
        notice(f"next: `diffuse evaluate {path}`" if sampled else f"next: `diffuse sample {path}`, then `diffuse evaluate {path}`")
    return folder


def _show_runs(folders: Sequence[Path]) -> None:
    """A table of several runs."""
    from rich.console import Group

    from diffusecli.report.glance import runs
    from diffusecli.verbs.evaluate import Question
    from diffusecli.verbs.evaluate import evaluate as judge

    terminal.console().print(Group(*runs(judge(folders, Question(), notice))))
    notice(f"next: `diffuse evaluate {' '.join(shlex.quote(str(folder)) for folder in folders)}`")


def _print_figures(done: Trained, seconds: float, *, several: bool = False) -> None:
    """Print exact figures of each prompt (of many prompts by folder), the drift, the run directory, and what to do next.

    `seconds` is the time of this run, which is the whole command unless there are `several`.
    """
    from diffusecli.evaluation.groups import MOST_LISTED
    from diffusecli.report.tables import trained_table
    from diffusecli.report.wording import DRIFT_SCALE
    from diffusecli.runs.next_commands import again, if_readable, training

    notice("Each KL above is the mean over an iteration. The figures below are of the trained model, after the last step")
    if len(done.after.prompts) + len(done.test.prompts) > MOST_LISTED:
        terminal.console().print(trained_table(done.after, done.test, done.digests))
    else:
        _print_each(done)
    if done.retention_kl is not None:
        typer.echo(f"drift from the base model on held-out instructions: {done.retention_kl:.4f} nats per token ({DRIFT_SCALE})")
    link = " in" if done.reason.startswith("finished") else ", after"
    in_all = f" ({done.seconds:.1f} s in total)" if done.seconds - done.seconds_now > _ROUNDED else ""
    parts = "loading, figures and sampling" if done.run.sample_files().get("lora") else "loading and figures"
    print_line(
        f"{done.run.path}: {done.reason}{link} {done.seconds_now:.1f} s of training{in_all}; this {'run' if several else 'command'} took {seconds:.0f} s, with {parts}"
    )
    stopped_early = done.reason.startswith("early stop")  # as asked
    furthest = max(done.after.kl, key=lambda alias: done.after.kl[alias], default="")
    if not stopped_early and done.after.kl.get(furthest, 0.0) > _FAR:
        longer = if_readable(lambda: training(done.run, further=True))  # a prompt may have changed during the training
        train_longer = f"Train longer: `{longer.command}`. If that no longer helps, train" if longer else "Train"
        notice(
            f"warning: {furthest} is far from its target (KL {done.after.kl[furthest]:.3f}). {train_longer} a larger adapter in a new run: "
            f"`{again(done.run)} {_larger(done.run)}`"
        )


def _larger(run: RunDir) -> str:
    """The options that train an adapter of twice the rank, in a folder of its own.

    The scale of the updates, alpha / r, stays as it is: `auto` follows the rank, and a fixed alpha is doubled, too.
    With `rslora` the scale barely depends on the rank, so alpha stays. A run that continued from another adapter starts anew.
    """
    from diffusecli.runs.finding import config_of

    config = config_of(run)
    lora, start = config.lora, "--set load_model=false " if config.load_model else ""
    rank = 2 * int(json.loads((run.path / "adapter_config.json").read_text(encoding="utf-8"))["r"])
    alpha = "" if lora.alpha == "auto" or lora.rslora else f"--set lora.alpha={2 * lora.alpha:g} "
    return f"{start}--set lora.r={rank} {alpha}--set {shlex.quote(f'output_dir={run.path}-r{rank}')}"


def _print_each(done: Trained) -> None:
    """Print a line per prompt. For several wordings, add their distances from the target."""
    from diffusecli.prompts.rounded_figures import with_rounding
    from diffusecli.prompts.wording_names import split_alias
    from diffusecli.report.numbers import plus_minus
    from diffusecli.report.wording import median_and_worst

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
            limit = with_rounding(exact.rounding[place].kl) if exact.rounding else ""
            print_line(f"{prompt.alias}{note}: {found}{limit}, {100 * on_target:.2f} % on target{worded}")
