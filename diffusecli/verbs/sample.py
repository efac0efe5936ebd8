"""`diffuse sample`: draw answers from a base model, an adapter or a server, and write them to the run directory.

Determines model, adapter, prompts and output file; `generations.py` draws and writes.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffusecli.evaluation.names import shown
from diffusecli.evaluation.prompt_book import kept_prompt
from diffusecli.evaluation.run_records import changed_since_training, read_sample_meta
from diffusecli.evaluation.sample_set import SERVED
from diffusecli.files.endings import require_ending
from diffusecli.files.locks import require_idle
from diffusecli.files.paths import exists, find
from diffusecli.files.text import holds_half_characters
from diffusecli.files.writing import require_writable
from diffusecli.models.adapters import base_of
from diffusecli.models.hub_adapters import fetched_adapter, is_on_hub
from diffusecli.models.identity import has_weights_of
from diffusecli.models.source import model_source
from diffusecli.prompts.config import CHAT_FIELDS, Config, short_name
from diffusecli.prompts.config_files import inspect_config, read_config
from diffusecli.prompts.groups import MOST_SAMPLED
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.prompt_files import is_there, read_prompts
from diffusecli.prompts.stated_options import require_statable
from diffusecli.prompts.wording_names import split_alias
from diffusecli.runs.finding import config_of, missing_run, newest_run, on_base
from diffusecli.runs.run_dir import RunDir
from diffusecli.runs.sample_files import FORMATS, SAMPLE_ENDINGS, in_series, meta_path, sampler_name, series
from diffusecli.runs.samples import format_of
from diffusecli.sampling.ask_methods import METHODS
from diffusecli.sampling.asking import AskingEngine, with_limit
from diffusecli.sampling.engine import EngineRequest
from diffusecli.sampling.engines import ENGINES
from diffusecli.sampling.generations import Sampled, generate
from diffusecli.sampling.model_names import same_model
from diffusecli.sampling.pooling import Report
from diffusecli.sampling.settings import SamplingSettings
from diffusecli.system.collector import collector_off
from diffusecli.system.errors import InputError, joined
from diffusecli.system.notices import Notice
from diffusecli.training.checkpoints import newest_checkpoint

_LONGEST_NAME = 200  # bytes; related files have longer names


@dataclass(frozen=True)
class Wanted:
    """Arguments from the command line or a program; None if not given."""

    source: Path | Config | None = None  # a run directory or a config
    mode: str | None = None
    prompts: tuple[Path, ...] = ()
    requests: tuple[str, ...] = ()
    adapter: Path | None = None
    model: str | None = None
    precision: str | None = None
    device: str | None = None
    output: Path | None = None
    form: str | None = None
    system: str | None = None
    chat_template: str | None = None
    trust_remote_code: bool = False
    served: bool = False  # by an engine that loads no model; `model` is its name for the model
    server: str = ""  # the address of such an engine
    given: tuple[Prompt, ...] = ()  # prompts in memory; each has an alias
    per_wording: bool = False  # sample each wording separately, including held-out ones
    fetched: str = ""  # the adapter's name on the hub and its commit, if it is from there
    ask: str | None = None  # a method of `ask_methods.py` that asks the model

    @property
    def is_of_config(self) -> bool:
        """Whether the source is a config, not a run."""
        return self.source is not None and (isinstance(self.source, Config) or not self.source.is_dir())

    @property
    def only_model(self) -> bool:
        """Whether a model is named, but no run, config or adapter."""
        return self.model is not None and self.source is None and self.adapter is None

    @property
    def default_mode(self) -> str:
        """Untuned if only a model is named, or if a method asks it; lora with an adapter, or a run or a config without a method."""
        return "untuned" if self.only_model or (self.ask and self.adapter is None) else "lora"

    @property
    def base(self) -> str | None:
        """The named base model; None for servers, where the name may be the adapter's."""
        return None if self.served else self.model


@dataclass(frozen=True)
class Resolved:
    """The resolved arguments: everything is known."""

    config: Config  # of the base model
    adapter: RunDir | None  # None samples the base model
    prompts: list[Prompt]
    path: Path
    form: str
    message: str  # one sentence for the user
    named: str | None = None  # the model's name on the command line
    home: RunDir | None = None  # the run whose samples these are
    named_base: bool = True  # whether the user named the base model, not a run
    fetched: str = ""  # the adapter's name on the hub and its commit, if it is from there
    ask: str | None = None

    @property
    def is_of_home(self) -> bool:
        """Whether `evaluate` of the run reads these samples."""
        if self.home is None or self.path.suffix not in SAMPLE_ENDINGS:
            return False
        return in_series(self.home.samples(self.mode, self.path.suffix, self.ask), self.path)

    @property
    def evaluated(self) -> Path:
        """What `evaluate` takes to judge these samples: their run, or the file."""
        return self.home.path if self.home is not None and self.is_of_home else self.path

    @property
    def effect(self) -> str:
        """What these samples change for a later `evaluate` of the run, to be asked before they are written. Empty if nothing."""
        if self.home is None or self.path.parent != self.home.path:
            return ""
        run, sampler = f"`diffuse evaluate {shlex.quote(str(self.home.path))}`", sampler_name(self.mode, self.ask)
        there = self.home.all_sample_files().get(sampler, [])
        if not self.is_of_home:
            return f"{run} ignores this file" if there else ""
        mine, older = {prompt.alias for prompt in self.prompts}, [file for file in there if file != self.path]
        others = [file.name for file in older if not mine.isdisjoint(read_sample_meta(file).prompts or mine)]
        replaced = "These samples replaced the earlier ones in this file. " if self.path in there else ""
        kept = "is" if len(others) == 1 else "are"
        unused = f". For the same prompts it ignores {joined(others)}, which {kept} kept" if others else ""
        return f"{replaced}{run} now uses these samples{unused}" if replaced or others else ""

    @property
    def served_name(self) -> str:
        """The model's name for a server: from the command line, otherwise the adapter's."""
        if self.named is not None or self.adapter is None:
            return self.named or self.config.model
        return self.adapter.served_name

    @property
    def mode(self) -> str:
        """The name of what is sampled in file names and tables."""
        return "untuned" if self.adapter is None else "lora"


def resolve(wanted: Wanted, results: Path) -> Resolved:
    """Find the run, the prompts and the output path; raises `InputError` if something is missing.

    Without a source, an adapter or a model, the run is the newest one below `results`.
    """
    if wanted.model is not None and not wanted.model.strip():
        raise InputError("--model: is empty. Name a model or remove the option")
    if wanted.served and wanted.source is None and wanted.adapter is None and wanted.model is None:
        raise InputError("--engine openai needs a run or --model. Example: --model NAME")
    mode = wanted.mode or wanted.default_mode
    wanted = _with_fetched(wanted)
    config, run, home, message = _source(wanted, mode, results)
    if wanted.mode is None and mode == "lora" and wanted.served and _is_base_name(wanted.model, RunDir(wanted.adapter or run.path)):
        mode = "untuned"
        message += (
            f"; {wanted.model} is the name of its base model. If the server has the tuned model under this name, add --mode lora"
        )
    adapter = None
    if mode == "lora":
        adapter = RunDir(wanted.adapter) if wanted.adapter else run
        if not adapter.has_adapter:
            require_idle(adapter.path, adapter.lock)
            raise InputError(
                f"{adapter.path}: no adapter found. Run `{_training(wanted, adapter)}` first, or use --mode untuned{_checkpoint(adapter)}"
            )
    prompts = _prompts(wanted, config, run)
    for prompt in prompts if wanted.ask else ():
        require_statable(prompt)
    form = wanted.form or (format_of(wanted.output) if wanted.output else "json")
    only_asked = bool(wanted.requests)  # --request alone does not replace the run's samples
    first = home.asked(mode, FORMATS[form]) if only_asked else home.samples(mode, FORMATS[form], wanted.ask)
    path = wanted.output or next(
        file for file in series(first) if not any(_other_prompts(beside, prompts) for beside in _formats(file))
    )
    if wanted.output is not None:
        _require_ending(wanted.output, form)
    _require_usable(path, prompts, named=wanted.output is not None)
    kind = SERVED if wanted.served and wanted.only_model else shown(mode)  # a server does not say whether its model is tuned
    asked = f", asked by the method {wanted.ask}" if wanted.ask else ""
    tuned = f", adapter {wanted.fetched or adapter.path}" if adapter else ""
    what = f"sampling {config.model}"
    if wanted.served:
        name = adapter.served_name if adapter is not None and wanted.model is None else config.model
        what = f"requesting answers{f' from {wanted.server}' if wanted.server else ''} of model {name}"
    message = f"{what} ({kind}{tuned}{asked}){message}"
    if wanted.source is None and _is_foreign(run, [*wanted.prompts, *wanted.given], prompts):
        message += ", which has none of these prompts. Name a run to sample another one"
    if adapter is not None and (changed := changed_since_training(adapter, prompts)):
        message += f"; changed since its training: {', '.join(changed)}"
    if wanted.per_wording:
        prompts = [wording for prompt in prompts for wording in (*prompt.wordings, *prompt.held_out)]
    of_a_run = wanted.model is None and (run.path.is_dir() if wanted.source is None else not wanted.is_of_config)
    return Resolved(config, adapter, prompts, path, form, message, wanted.model, home, not of_a_run, wanted.fetched, wanted.ask)


def _is_base_name(name: str | None, adapter: RunDir) -> bool:
    """Whether a server's name for a model is that of the base model under an adapter."""
    try:
        base = base_of(adapter.path)
    except InputError:  # no adapter, or its base is not recorded
        return False
    return name is not None and same_model(name, base)


def _is_foreign(run: RunDir, named: Sequence[Path | Prompt], prompts: Sequence[Prompt]) -> bool:
    """Whether prompts were named, and the run was neither trained on any of them nor tested with it."""
    known = run.read_prompts() if named and run.path.is_dir() else {}
    return bool(known) and known.keys().isdisjoint(prompt.alias for prompt in prompts)


def _with_fetched(wanted: Wanted) -> Wanted:
    """With the folder of an adapter that is on the hub."""
    if wanted.adapter is None or not is_on_hub(wanted.adapter):
        return wanted
    folder, fetched = fetched_adapter(wanted.adapter)
    return replace(wanted, adapter=folder, fetched=fetched)


def _require_usable(path: Path, prompts: Sequence[Prompt], *, named: bool) -> None:
    """Raises `InputError` for an output file that cannot be written, or must not be replaced. `named`: by the user."""
    if path.name == "-":
        raise InputError("-o -: samples cannot go to stdout: their settings are written next to the file. Name a file")
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise InputError(f"{path}: the file name is too long. Choose a shorter one")
    if exists(path) and not path.is_file():
        raise InputError(f"{path}: is not a regular file. Choose another one")
    if named and path.exists() and not meta_path(path).is_file():
        raise InputError(f"{path}: exists and was not written by `diffuse sample`. Choose another file or remove it")
    if named and (others := _other_prompts(path, prompts)):
        raise InputError(f"{path}: contains samples of {others[0]}, which is not sampled now. Choose another file or remove it")


def _require_ending(path: Path, form: str) -> None:
    """Raises `InputError` if the file extension belongs to another format."""
    require_ending(path, "-o", "samples are written as JSON, JSON lines or CSV", *dict.fromkeys(FORMATS.values()))
    ending, own = FORMATS[form], path.suffix.lower()
    if own != ending and (own in FORMATS.values() or ending != ".json"):
        raise InputError(f"-o {path}: the extension does not match --format {form}. Use {ending} or remove --format")


def _training(wanted: Wanted, run: RunDir) -> str:
    """The command that trains the missing adapter."""
    config = wanted.source if isinstance(wanted.source, Path) and wanted.is_of_config else run.config
    return f"diffuse train {shlex.quote(str(config))}" if config.is_file() else "diffuse train"


def _checkpoint(run: RunDir) -> str:
    """A hint about the checkpoint of an interrupted training."""
    found = newest_checkpoint(run)
    return f" (found an interrupted training: finish it, or use --adapter {found})" if found else ""


def sample(
    wanted: Resolved, settings: SamplingSettings, *, engine: str = "counting", options: Mapping[str, Any] | None = None,
    max_rows: int | None, report: Report, notice: Notice,
) -> Sampled:  # fmt: skip
    """Draw from every prompt and write the samples; `engine` is a name in `ENGINES`, `options` are its own.

    Raises what the engine raises, and `InputError` if the adapter belongs to another model.
    """
    kind = ENGINES[engine]
    if wanted.ask is not None:
        settings = with_limit(settings, wanted.ask, wanted.prompts)
    name = wanted.config.model if kind.loads_model else wanted.served_name
    require_writable(wanted.path.parent)
    source = model_source(wanted.config, named=wanted.named_base)
    asked = EngineRequest(source, wanted.adapter, name, settings, max_rows, notice, wanted.home)
    with ExitStack() as at_work:
        with collector_off():
            made = at_work.enter_context(kind.make(asked, **(options or {})))
        if wanted.ask is not None:
            made = AskingEngine(made, METHODS[wanted.ask], settings.seed)
        notice(wanted.message)  # now, because the model was found
        return generate(
            made, wanted.prompts, settings, mode=wanted.mode, path=wanted.path, form=wanted.form, report=report, notice=notice,
            adapter_sha256=wanted.adapter.adapter_sha256 if wanted.adapter is not None else None, adapter=wanted.fetched,
        )  # fmt: skip


def _source(wanted: Wanted, mode: str, results: Path) -> tuple[Config, RunDir, RunDir, str]:
    """The config, the run, the run directory of the samples, and a phrase for the source of the config.

    A named base model is the base of the run's adapter. With mode untuned it is a different model with its own folder.
    """
    given = {
        "model": wanted.model, "precision": wanted.precision, "device": wanted.device, "system": wanted.system,
        "chat_template": wanted.chat_template,
    }  # fmt: skip
    overrides: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if wanted.source is None and (wanted.adapter is not None or wanted.model is not None):
        if wanted.model is None and wanted.adapter is not None:
            overrides["model"] = base_of(wanted.adapter)
        home = RunDir(_separate_folder(wanted, results))
        overrides |= {"output_dir": str(home.path), "trust_remote_code": wanted.trust_remote_code}
        return Config.model_validate({**_fields_of(wanted.adapter), **overrides}), home, home, ""
    own: Config | None
    other = wanted.model is not None and not wanted.served and mode == "untuned"
    if wanted.source is None or (isinstance(wanted.source, Path) and wanted.source.is_dir()):
        if wanted.source is None and not results.is_dir():
            raise InputError(f"{results}: contains no run to sample. Train one with `diffuse train`, or name a model with --model")
        run = newest_run(results) if wanted.source is None else RunDir(wanted.source)
        own = config_of(run, trust_remote_code=wanted.trust_remote_code)
        message = f" as in {'newest run' if wanted.source is None else 'run'} {run.path}"
        config, other = on_base(own, wanted.base), other and not _is_base_of(run, own, wanted.model)
    else:
        config, own, message = _of_config(wanted.source, wanted.base)
        vouched = own is not None and own.trust_remote_code and wanted.model in (None, own.model)  # only for the config's own model
        overrides["trust_remote_code"] = wanted.trust_remote_code or vouched
        run = RunDir(Path(config.output_dir))
        other = other and own is not None and own.output_dir == config.output_dir and not _is_base_of(run, own, wanted.model)
    home = RunDir(_separate_folder(wanted, results)) if wanted.adapter or other else run  # the run's samples are not replaced
    return Config.model_validate({**config.model_dump(), **_fields_of(wanted.adapter), **overrides}), run, home, message


def _is_base_of(run: RunDir, config: Config, model: str | None) -> bool:
    """Whether this is the run's own model, by name or by weights."""
    return model == config.model or (model is not None and run.manifest.is_file() and has_weights_of(model, run.read_manifest()))


def _of_config(source: Path | Config, base: str | None) -> tuple[Config, Config | None, str]:
    """The config with the named base model (as `train --set model=…`); the original config, if valid; a phrase for the source."""
    if isinstance(source, Config):
        return on_base(source, base), source, ""
    if source.suffix not in (".yaml", ".yml") and not exists(find(source).place):
        raise missing_run(source)
    config = read_config(source, [f"model={json.dumps(base)}"] if base is not None else [])
    own = config if base is None else inspect_config(source).config
    return config, own, f" as in config {source}"


def _fields_of(adapter: Path | None) -> dict[str, Any]:
    """The chat settings and the precision of the run of an adapter or checkpoint."""
    if adapter is None:
        return {}
    run = RunDir(adapter).owner
    if not run.config.is_file():
        return {}
    config = config_of(run)
    return {name: getattr(config, name) for name in (*CHAT_FIELDS, "precision")}


def _separate_folder(wanted: Wanted, results: Path) -> Path:
    """The adapter's run, or a folder named after the adapter and its content, or after the model."""
    if wanted.adapter is None:
        return results / short_name(wanted.model or "")
    run = RunDir(wanted.adapter)
    if not wanted.fetched and (run.manifest.is_file() or not run.has_adapter):
        return run.path
    name = wanted.fetched.split("@")[0].rpartition("/")[2] or run.path.resolve().name
    return results / f"{name}-{run.adapter_sha256[:8]}"


def _other_prompts(path: Path, prompts: Sequence[Prompt]) -> list[str]:
    """The prompts in a file of samples that are not among these: their samples must stay."""
    there = [split_alias(alias)[0] for alias in read_sample_meta(path).prompts] if path.is_file() else []
    sampled = {prompt.alias for prompt in prompts}
    return [alias for alias in there if alias not in sampled]


def _formats(samples: Path) -> list[Path]:
    """The file in every format. They share the file of settings, so a file of another format counts, too."""
    return [samples.with_suffix(ending) for ending in SAMPLE_ENDINGS]


def _prompts(wanted: Wanted, config: Config, run: RunDir) -> list[Prompt]:
    """The named prompts, otherwise the config's test prompts, otherwise its train prompts; missing files are replaced by the run's records."""
    if wanted.prompts or wanted.requests or wanted.given:
        for text in wanted.requests:
            if not text.strip() or holds_half_characters(text):
                raise InputError(f"--request {text!r}: must be a non-empty text in UTF-8")
        asked = [Prompt(request=text, targets=(), alias=text) for text in dict.fromkeys(wanted.requests)]
        named = read_prompts(wanted.prompts) if wanted.prompts else []
        if both := sorted({prompt.alias for prompt in named} & set(wanted.requests)):
            raise InputError(
                f"--request {both[0]!r}: is also the path of a prompt to sample. A sample file identifies prompts by path or "
                "request. Sample the two separately"
            )
        return [*named, *wanted.given, *asked]
    paths = config.test_prompts or config.train_prompts
    if not paths:
        raise InputError("nothing to sample. Name a prompt with --prompt or --request, or add test_prompts to the config")
    if all(map(is_there, paths)):
        found = read_prompts(paths)
    else:
        some = [read_prompts([path]) if is_there(path) else _kept(run, path, whole=wanted.is_of_config) for path in paths]
        found = list({prompt.alias: prompt for prompts in some for prompt in prompts}.values())
    if not config.test_prompts and len(found) > MOST_SAMPLED:
        raise InputError(
            f"the config has no test_prompts, and {len(found)} train_prompts are too many to sample all. Name some with --prompt, or add "
            "test_prompts"
        )
    return found


def _kept(run: RunDir, path: str, *, whole: bool) -> list[Prompt]:
    """The prompts of a missing file or folder, from the run's records.

    Other prompts come from the bundled copy: the rest of a `whole` folder, or all if the run has none. Raises `InputError` if they are in neither.
    """
    values = {alias: value for alias, value in run.read_prompts().items() if Path(alias).is_relative_to(path)}
    kept = {alias: prompt for alias, value in values.items() if (prompt := kept_prompt(alias, value, run.prompts)) is not None}
    others = read_prompts([path]) if not kept or (whole and exists(find(path).place)) else []
    return list({**{prompt.alias: prompt for prompt in others}, **kept}.values())
