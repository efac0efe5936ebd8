"""`diffuse init-prompt`: make a prompt file from a distribution, or a folder of prompts from a grouped table.

Makes prompts from distributions; the command line decides where to write them.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusecli.files.endings import require_ending
from diffusecli.files.paths import exists
from diffusecli.files.writing import write_text
from diffusecli.prompts.catalogue import make_distribution
from diffusecli.prompts.distributions import Distribution
from diffusecli.prompts.families import naming_its_options
from diffusecli.prompts.file_names import file_names
from diffusecli.prompts.groups import MOST_SAMPLED
from diffusecli.prompts.observations import distributions_in
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.request_wording import Wording, prompt_from, shows_form
from diffusecli.prompts.weighing import Reading
from diffusecli.prompts.wording_checks import departure
from diffusecli.system.errors import InputError
from diffusecli.system.notices import Notice

if TYPE_CHECKING:
    from diffusecli.sampling.connection import Service


def choose(
    families: Mapping[str, Any], modifiers: Mapping[str, Any], source: Path | None, reading: Reading, *, worded: bool = False
) -> dict[tuple[str, ...], Distribution]:
    """The requested distribution, or one per group of a table. With `worded` (built-in wordings), a table's request lists its targets.

    `families` maps family names (as parameters: underscores, no dashes) to the values of their options (None or False: not given). Raises
    `InputError` unless exactly one family or file is named, with options that apply to it.
    """
    chosen = {f"--{name.replace('_', '-')}": value for name, value in families.items() if value is not None and value is not False}
    named = [*chosen, *(["--from"] if source is not None else [])]
    if len(named) != 1:
        given = (
            f"{' and '.join(named)} exclude each other. Keep one"
            if named
            else "no distribution given. Name one, e.g. --binomial 10 0.2"
        )
        raise InputError(f"{given} (`diffuse init-prompt --list` shows all)")
    if source is None:
        if reading != Reading():
            raise InputError("--column, --count, --group-by and similar options describe a file. Name it with --from")
        return {(): make_distribution(named[0].removeprefix("--"), chosen[named[0]], modifiers)}
    if foreign := [f"--{name.replace('_', '-')}" for name, value in modifiers.items() if value is not None]:
        raise InputError(f"{foreign[0]} does not apply to --from. Remove it")
    found = distributions_in(source, reading)
    return {key: naming_its_options(each) for key, each in found.items()} if worded else found


def with_paraphrases(
    distributions: Mapping[tuple[str, ...], Distribution], wording: Wording, count: int, service: Service, notice: Notice
) -> Wording:
    """Add paraphrases of the first request, or of the distribution's own request, to the wording. Each one is shown.

    Raises `InputError` for several prompts, with built-in wordings, and if the server returns no usable paraphrase.
    """
    from diffusecli.sampling.paraphrases import paraphrase

    if wording.draws is not None:
        raise InputError("--paraphrase cannot be combined with --draws. Write your own requests for several draws")
    if list(distributions) != [()] or wording.wordings is not None:
        other = "--wordings" if wording.wordings is not None else "a prompt per group or row"
        raise InputError(f"--paraphrase cannot be combined with {other}. Remove one of them")
    distribution = distributions[()]
    requests = wording.requests or (distribution.request,)
    form = wording.form or not wording.requests
    targets = [wording.wrap.replace("%s", outcome) for outcome in distribution.outcomes]
    asks = not form and shows_form(requests[0], wording.wrap)

    def refusal(text: str) -> str:
        silent = asks and not shows_form(text, wording.wrap)
        return departure(requests[0], text, targets) or ("do not ask for the form of the answer" if silent else "")

    made = paraphrase(requests[0], count, service, refusal, known=requests, seed=wording.seed, notice=notice)
    for text in made.texts:
        notice(f"paraphrase: {text}")
    reasons = ", ".join(f"{number} {reason}" for reason, number in made.refused.items())
    if reasons:
        notice(f"refused: {reasons}")
    if not made.texts:
        raise InputError(
            f"--paraphrase {count}: {service.model} returned no usable paraphrase ({reasons or 'all are empty'}). Use another model"
        )
    if len(made.texts) < count:
        notice(f"warning: {len(made.texts)} of {count} paraphrases. For more, use another --seed or another model")
    return replace(wording, request=(*requests, *made.texts), form=form)


def prompts_from(
    distributions: Mapping[tuple[str, ...], Distribution],
    wording: Wording,
    groups: tuple[str, ...],
    output: Path | None,
    grouping: str = "--group-by",
) -> dict[Path | None, Prompt]:
    """The prompts and their paths: `output` itself, or with groups a separate file in this folder."""
    filled = {key: fields_of(distribution, groups, key) for key, distribution in distributions.items()}
    prompts = [prompt_from(distribution, wording, filled[key]) for key, distribution in distributions.items()]
    is_folder = groups or len(prompts) > 1 or (any(filled.values()) and output is not None and output.suffix != ".json")
    if not is_folder:
        if output is not None:
            require_ending(output, "-o", "a prompt is written as JSON", ".json")
        return {output: prompts[0]}
    what = grouping if groups else "--shares-column"
    if output is None:
        raise InputError(f"{what} writes a folder of prompts. Name it with -o")
    require_ending(output, "-o", f"{what} writes a folder of prompts")
    require_different_requests(prompts, filled, what)
    return {output / name: prompt for name, prompt in zip(file_names(list(distributions)), prompts, strict=True)}


def fields_of(distribution: Distribution, groups: Sequence[str], key: Sequence[str]) -> dict[str, str]:
    """Values for the placeholders of a group's request: its group columns, or all columns of its row."""
    return dict(distribution.fields) or dict(zip(groups, key, strict=True))


def require_different_requests(prompts: Sequence[Prompt], filled: Mapping[tuple[str, ...], Mapping[str, str]], what: str) -> None:
    """Raises `InputError` for two groups with the same request."""
    first: dict[tuple[str | tuple[str, ...], str | None], tuple[str, ...]] = {}
    for prompt, key in zip(prompts, filled, strict=True):
        same = first.setdefault((prompt.request, prompt.system), key)
        if same != key:
            differ = [name for name, value in filled[key].items() if filled[same].get(name) != value] or list(filled[key])
            who = "all groups" if len({(p.request, p.system) for p in prompts}) == 1 else f"{', '.join(same)} and {', '.join(key)}"
            raise InputError(
                f"{what}: {who} would have the same request. Put {{{differ[0]}}} into --request or --system, e.g. {_naming(differ[0], prompt)}"
            )


def _naming(field: str, prompt: Prompt) -> str:
    """The option for a request that names the field, to copy."""
    text, form, _ = prompt.requests[0].partition(" Output only the ")
    text = text.replace("{", "{{").replace("}", "}}")
    return f"--request {shlex.quote(f'{field}: {{{field}}}. {text}')}{' --form' if form else ''}"


_PLAIN_PATH = re.compile(r"[A-Za-z./][\w./-]*")
"""Paths that YAML reads as text without quotes."""


def config_text(prompt: Path, config: Path, prompts: int) -> str:
    """A config that trains on this prompt or folder of so many, and samples it. Raises `InputError` for a file that is not YAML."""
    require_ending(config, "--config", "a config is written as YAML", ".yaml", ".yml")
    path = str(prompt) if _PLAIN_PATH.fullmatch(str(prompt)) else json.dumps(str(prompt), ensure_ascii=False)
    return (
        "model: smollm2-135m-instruct    # built in; or any Hugging Face id, folder or .gguf file\n"
        f"train_prompts: [{path}]\n"
        + (f"test_prompts: [{path}]    # sampled after training, 1000 answers\n" if prompts <= MOST_SAMPLED else "")
        + "output_dir: results/{config}\n"
    )


def write_texts(texts: Mapping[Path, str], *, force: bool) -> None:
    """Write prompt files. If one exists and `force` is not set, write none and raise `InputError`."""
    if folder := next((path for path in texts if exists(path) and path.is_dir()), None):
        raise InputError(f"{folder}: is a folder. Name a file in it")
    if not force and (there := [path for path in texts if exists(path)]):
        raise InputError(f"{there[0]}: already exists. Choose another path, or add --force to replace it")
    for path, text in texts.items():
        write_text(path, text)
