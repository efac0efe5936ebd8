"""Python API: sampling."""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from diffusecli.api.arguments import flag, function, number, one_of, optional, text, texts, whole, wrong
from diffusecli.api.inputs import AnyPath, Prompts, are_prompts, configured, listed, named, path_of
from diffusecli.api.notices import calling
from diffusecli.api.placed import Placed
from diffusecli.api.training import Trained
from diffusecli.prompts.answers import Answers, by_count
from diffusecli.prompts.config import Config
from diffusecli.prompts.config_files import config_from
from diffusecli.prompts.matching import Matching, target_finder
from diffusecli.prompts.prompt import Prompt
from diffusecli.runs.run_dir import RunDir
from diffusecli.runs.sample_files import ASK_METHODS, MODES, sampler_name
from diffusecli.sampling.engines import ENGINES
from diffusecli.sampling.settings import SamplingSettings, Standing
from diffusecli.system.errors import InputError, did_you_mean, nearest, sentence
from diffusecli.system.notebook import Columns, frame, html_table
from diffusecli.system.notices import Notice

if TYPE_CHECKING:
    from pandas import DataFrame

_RESULTS = Path("results")
_KINDS: dict[Any, Callable[[str, Any], Any]] = {int: whole, float: number, str: text}  # of options of engines
_PRECISIONS = [name for name in typing.get_args(Config.model_fields["precision"].annotation) if name != "auto"]


@dataclass(frozen=True)
class Samples(Placed):
    """Answers and the path of their file."""

    path: Path  # the file of samples
    mode: str  # untuned: the base model; lora: the adapter
    seconds: float  # of sampling, without loading
    unfinished: int  # total number of answers cut at the limit of tokens
    prompts: tuple[Prompt, ...] = field(repr=False)  # in the order of the samples
    counts: Mapping[str, Answers] = field(repr=False)  # alias of a prompt -> each different answer with its count
    ask: str | None = None  # the method that asked the model

    def require_unchanged(self) -> None:
        """Raises `InputError` if the file has other samples now."""
        if not self._are_there():
            raise InputError(
                f"{self.path}: these samples were replaced by another sampling. Sample with output=…, or evaluate "
                "before you sample again"
            )

    def _are_there(self) -> bool:
        from diffusecli.evaluation.run_records import read_sample_meta
        from diffusecli.prompts.answers import with_unfinished
        from diffusecli.runs.samples import read_samples

        if not self.place.is_file():
            return False
        written, meta = read_samples(self.place), read_sample_meta(self.place)
        asked = meta.ask.method if meta.ask else None
        if written.keys() != self.counts.keys() or meta.mode not in (None, self.mode) or asked != self.ask:
            return False
        there = {alias: with_unfinished(counts, meta.unfinished.get(alias, {})) for alias, counts in written.items()}
        return all(there[alias] == own and there[alias].unfinished == own.unfinished for alias, own in self.counts.items())

    def to_frame(self) -> DataFrame:
        """A data frame with one row per prompt and different answer, most frequent first.

        - `prompt`, `answer`: the prompt's alias and the answer's text
        - `count`, `unfinished`: how often the answer occurs, and how many of these were cut at the limit of tokens
        - `share`: of all answers to the prompt
        - `weight`: of the matching target; nan for an answer that is not a target
        """
        return frame(self._columns())

    def _repr_html_(self) -> str:
        """The table shown in notebooks."""
        return html_table(self._columns(), f"{self.path} ({sampler_name(self.mode, self.ask)})")

    def _columns(self) -> Columns:
        names = ("prompt", "answer", "count", "unfinished", "share", "weight")
        rows = [row for prompt in self.prompts for row in _rows(prompt, self.counts[prompt.alias])]
        return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def _rows(prompt: Prompt, answers: Answers) -> list[tuple[str, str, int, int, float, float]]:
    target_of, total = target_finder(prompt, Matching()), answers.total()

    def weight(text: str) -> float:
        place = target_of(text)
        cut = prompt.eos and answers.unfinished[text] == answers[text]  # a cut answer is not a target
        partial = prompt.in_parts  # the whole answer has no weight
        return math.nan if place is None or cut or partial else prompt.probabilities[place]

    return [(prompt.alias, text, n, answers.unfinished[text], n / total, weight(text)) for text, n in by_count(answers)]


def sample(
    source: Trained | Config | AnyPath | None = None, *, mode: Literal["lora", "untuned"] | None = None, n: int = 1000,
    prompts: Prompts | None = None, requests: str | Iterable[str] | None = None, model: str | None = None, adapter: AnyPath | None = None,
    seed: int | None = None, max_new_tokens: int | None = None, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0,
    min_p: float = 0.0, stop: str | Iterable[str] = (), system: str | None = None, chat_template: str | None = None,
    precision: str | None = None, device: str | None = None, max_rows: int | None = None, trust_remote_code: bool = False,
    engine: str = "counting", output: AnyPath | None = None, per_wording: bool = False, ask: str | None = None, report: Callable[[str, Standing], None] | None = None,
    notice: Notice | None = None, **options: Any,
) -> Samples:  # fmt: skip
    """Draw answers from a base model, from an adapter or from a server, and write them with their settings.

    - `source`: the result of `train`, a run directory, a `Config` or its path. Not needed with `model` or `adapter`.
    - `mode`: `lora` samples the adapter, `untuned` the base model. By default `lora`, or `untuned` with `model` alone.
    - `n`: answers per prompt.
    - `prompts`: prompts, files or folders that replace the config's test prompts. For a mapping, such as the result of `init_prompts`,
      the values are the prompts. A prompt in memory is named as in the run if the run has it, otherwise by its `alias` or its request.
    - `per_wording`: draw `n` answers for each wording of a prompt with several requests, held-out ones too, under names such as
      `dice.json#2` and `dice.json#held-out-1`. By default the trained wordings share the `n` answers evenly.
    - `ask`: a prompt-only method: `direct`, `verbalized`, `string-seed`, `seeded` or `rejection`. The request states the targets with their
      probabilities, and each reply is recorded as the target that it names. The default mode is then `untuned`.
    - `requests`: texts of requests. Their answers go to a separate file next to the run's samples.
    - `model`, `adapter`: a base model and the folder of a LoRA adapter that replace those of the run.
    - `seed`: the same seed gives the same samples. By default the config's.
    - `max_new_tokens`: maximum number of tokens of an answer. By default 50, or more if the longest target needs more; each method of
      `ask` has its own default.
    - `temperature`, `top_k`, `top_p`, `min_p`, `stop`: as in `transformers`. The defaults sample the model's own distribution.
    - `system`, `chat_template`, `precision`, `device`: override the config's.
    - `max_rows`: batch size. Affects memory, not results.
    - `engine`, `options`: the source of answers and its options, such as `engine="openai", base_url=…`.
    - `output`: the file to write. By default one in the run directory, or below `results` if there is no run.
    - `report`: called as answers arrive, with the prompt's alias and a `Standing`: the `answers` so far (a mapping of text to count), the
      number `wanted`, unfinished `rows`, and `tokens_fed`.
    - `notice`: called with the notices of the command line. By default they are logged.

    An interrupted sampling resumes when it is started again. Raises `InputError`, `MachineError` and `InterruptedRun` as `train` does.
    """
    chosen = _engine(text("engine", engine), options)
    _require_source(source)
    if source is None and model is None and adapter is None:
        raise InputError("nothing to sample. Name a run, a config, a model or an adapter")
    max_rows = optional(whole, "max_rows", max_rows, 1)
    of_models = {
        "device": optional(text, "device", device), "max_rows": max_rows,
        "precision": optional(one_of, "precision", precision, _PRECISIONS),
        "trust_remote_code": flag("trust_remote_code", trust_remote_code) or None,
    }  # fmt: skip
    if not ENGINES[chosen].loads_model and (foreign := [name for name, given in of_models.items() if given is not None]):
        raise InputError(f"{foreign[0]} has no effect with engine {chosen!r}. Remove it or use another engine")
    optional(one_of, "mode", mode, MODES)
    optional(one_of, "ask", ask, ASK_METHODS)
    flag("per_wording", per_wording)
    for name, value in {"model": model, "system": system, "chat_template": chat_template}.items():
        optional(text, name, value)
    if chat_template == "":
        raise InputError("chat_template: is empty. Name plain or a file, or remove it")
    for name, taker in {"report": report, "notice": notice}.items():
        optional(function, name, taker)
    seed, max_new_tokens = optional(whole, "seed", seed, 0), optional(whole, "max_new_tokens", max_new_tokens, 1)
    asked, questions = listed(prompts), () if requests is None else texts("requests", requests)
    empty = [name for name, some in (("prompts", prompts), ("requests", requests)) if some is not None]
    if empty and not asked and not questions:
        raise InputError(f"{empty[0]}: is empty. Remove it to use the run's own prompts")
    from diffusecli.verbs.sample import Wanted, resolve
    from diffusecli.verbs.sample import sample as draw

    limit: dict[str, Any] = {"whole_targets": True} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}
    settings = SamplingSettings(
        whole("n", n, 1), temperature=number("temperature", temperature), top_k=whole("top_k", top_k, 0), top_p=number("top_p", top_p),
        min_p=number("min_p", min_p), seed=seed or 0, stop=texts("stop", stop), **limit,
    )  # fmt: skip
    with calling(notice) as say:
        place = source.place if isinstance(source, Trained) else source
        if place is not None:
            place = config_from(configured(place, {})) if isinstance(place, Config) else path_of(place, "source")
        given = named([one for one in asked if isinstance(one, Prompt)], _run_of(place))
        wanted = resolve(Wanted(
            place, mode, prompts=tuple(Path(one) for one in asked if isinstance(one, str)), requests=questions, given=tuple(given),
            adapter=None if adapter is None else path_of(adapter, "adapter"), model=model, precision=precision, device=device,
            output=None if output is None else path_of(output, "output"), system=system, chat_template=chat_template,
            trust_remote_code=trust_remote_code, served=not ENGINES[chosen].loads_model, server=options.get("base_url", ""),
            per_wording=per_wording, ask=ask,
        ), _RESULTS)  # fmt: skip
        settings = replace(settings, seed=wanted.config.seed if seed is None else seed)
        done = draw(
            wanted, settings, engine=chosen, options=options, max_rows=max_rows, report=report or (lambda *_: None), notice=say
        )
    return Samples(
        done.path,
        wanted.mode,
        done.seconds,
        done.unfinished,
        tuple({prompt.alias: prompt for prompt in wanted.prompts}.values()),
        done.counts,
        wanted.ask,
    )


def _require_source(source: Any) -> None:
    """Raises `InputError` for anything that is not a source of answers."""
    if are_prompts(source):
        raise InputError("source: these are prompts. Write sample(run, prompts=…)")
    if source is not None and not isinstance(source, Trained | Config | str | PathLike):
        raise wrong("source", "what train returned, a run directory, a Config or its path", source)


def _engine(name: str, options: Mapping[str, Any]) -> str:
    """The engine's name; raises `InputError` for an unknown engine, an unknown option or a missing one."""
    if name not in ENGINES:
        raise InputError(f"engine {name!r}. {sentence(did_you_mean(name, list(ENGINES)))}")
    own = ENGINES[name].options
    if foreign := [option for option in options if option not in own]:
        known = [*own, *(p for p in inspect.signature(sample).parameters if p != "options")]
        near = nearest(foreign[0], known)
        remedy = f"did you mean '{near}'?" if near else f"known are: {', '.join(own)}" if own else "remove it"
        raise InputError(f"engine {name!r} has no option '{foreign[0]}': {remedy}")
    require_kinds(name, options)
    if missing := [option for option in ENGINES[name].required if option not in options]:
        raise InputError(f"engine {name!r} needs {missing[0]}: {own[missing[0]].help}")
    return name


def require_kinds(engine: str, options: Mapping[str, Any]) -> None:
    """Raises `InputError` for an option of an engine with a value of the wrong type."""
    own = ENGINES[engine].options
    for option, value in options.items():
        kinds = typing.get_args(own[option].kind) or (own[option].kind,)
        if value is None and type(None) in kinds:
            continue
        check: Callable[[str, Any], Any] = _KINDS.get(kinds[0], texts)
        check(option, value)


def _run_of(place: Path | Config | None) -> RunDir | None:
    """The run whose aliases the prompts get."""
    if isinstance(place, Config):
        return RunDir(Path(place.output_dir))
    return RunDir(place) if place is not None and place.is_dir() else None
