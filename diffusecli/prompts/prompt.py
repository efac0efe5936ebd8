"""A prompt: a request, the target strings a model should answer it with, and their weights.

Reads and checks prompt files. Knows nothing of tokens or models; see `encoding.py` for those.

Which prompt is which: `digest` is what a prompt asks and expects, `alias` is what it is called (the path of its file). One alias
can have two digests, when the file was edited between two commands. One digest can have two aliases, when the file was copied.

- In memory, figures and samples are kept in the order of the prompts, or under `Prompt.key`, both together.
- On disk, files name prompts by alias, as the original does. A file never holds two prompts of the same alias
  (`require_own_names`) and the digests are beside it. A figure is read back only for the digest that it was recorded for.
- One file under several paths (`./p.json`, an absolute path, a link) is one prompt, named by the first path (`prompt_files`).
- Reports add the first digits of the digest to names that two prompts share (`report.parts.prompt_names`).

The system text and the chat template of a config are part of what a model is asked, but not of the digest: they are compared
beside it, as `chat` in `run.json` and in the settings of samples.
"""

from __future__ import annotations

import glob
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from diffusecli.files.documents import Document, read_document
from diffusecli.files.paths import exists, find, look_again, real, spread, visible_files
from diffusecli.files.schema import problems_of
from diffusecli.files.text import canonical
from diffusecli.system.errors import InputError, Problem, many
from diffusecli.system.notebook import frame, html_table

if TYPE_CHECKING:
    from pandas import DataFrame


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Prompt(BaseModel):
    """One request with its target distribution. Files of the original format are read unchanged."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=False)

    request: str = Field(min_length=1, description="What the user asks of the model.")
    response: Annotated[
        tuple[str, ...], BeforeValidator(_one_or_many, json_schema_input_type=str | list[str]), Field(strict=False)
    ] = Field(
        default=("",),
        description="Beginnings of the answer, put before each target; several are equally likely variants.",
    )
    targets: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        description="The strings to answer with. May be empty in a prompt that is only sampled."
    )
    weights: Annotated[tuple[float, ...] | None, Field(strict=False)] = Field(
        default=None, description="One number per target, normalised by their sum. Absent or empty: uniform."
    )
    eos: bool = Field(
        default=True,
        description="Whether the answer ends after the target. false: the target only begins the answer.",
    )
    system: str | None = Field(
        default=None, description="A system text for this prompt, in place of the config's. Empty: a system message without text."
    )
    alias: str = Field(default="", exclude=True, description="The path the prompt was read from; never in the file.")

    @cached_property
    def probabilities(self) -> tuple[float, ...]:
        """The weights normalised to sum to 1, one per target."""
        if not self.weights:
            return tuple(1.0 / len(self.targets) for _ in self.targets)
        total = math.fsum(self.weights)
        return tuple(weight / total for weight in self.weights)

    @property
    def variants(self) -> tuple[str, ...]:
        """The distinct beginnings of the answer; `("",)` when none is given."""
        return tuple(dict.fromkeys(self.response)) or ("",)

    @property
    def most_tokens(self) -> int:
        """An upper bound on the tokens of the longest target, for servers, which hide their tokenizer; 0 without targets.

        A token spells a byte at least; a space before the text and the end take one each.
        """
        return max((len((start + target).encode()) + 2 for target in self.targets for start in self.variants), default=0)

    @property
    def entropy(self) -> float:
        """H of the target distribution in nats; 0 p ln 0 counts as 0."""
        return math.fsum(-p * math.log(p) for p in self.probabilities if p > 0)

    def expected_distinct(self, n: int) -> float:
        """S = sum 1 - (1 - p_i)^N: how many targets N independent draws are expected to show.

        >>> round(Prompt(request="r", targets=("a", "b")).expected_distinct(10), 3)
        1.998
        """
        return math.fsum(1 - (1 - p) ** n for p in self.probabilities)

    @cached_property
    def digest(self) -> str:
        """sha256 over everything that defines the prompt, whatever its file is called."""
        fields = {key: value for key, value in self.model_dump().items() if (key, value) != ("system", None)}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    @property
    def key(self) -> tuple[str, str]:
        """Which prompt this is, among edited and copied ones: alias and digest."""
        return self.alias, self.digest

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other fields, which are not checked. What follows from them is worked out anew."""
        copied = super().model_copy(update=update, deep=deep)
        if set(update or ()) - {"alias"}:
            for name in ("probabilities", "digest"):
                copied.__dict__.pop(name, None)
        return copied

    def to_frame(self) -> DataFrame:
        """A data frame with a row per target: `target` and `weight`, normalised."""
        return frame({"target": self.targets, "weight": self.probabilities})

    def _repr_html_(self) -> str:
        """What notebooks show."""
        return html_table({"target": self.targets, "weight": self.probabilities}, self.request)

    def to_json(self) -> str:
        """The prompt file's text: only what differs from the defaults, in the original's order."""
        fields = self.model_dump(mode="json")
        if self.weights is None:
            del fields["weights"]
        if self.eos:
            del fields["eos"]
        if self.system is None:
            del fields["system"]
        return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"


def inspect_prompt(path: str | Path) -> tuple[Prompt | None, list[Problem]]:
    """Read one prompt file and tell everything that is wrong with it.

    The prompt is None when any of the problems is an error.
    """
    found = find(path)
    document, problems = read_document(found.place, name=found.name)
    if document is None:
        return None, problems
    if isinstance(document.data, dict) and "alias" in document.data:
        problems.append(document.problem(("alias",), "unknown key 'alias'", "a prompt's alias is its path: remove it"))
    elif isinstance(document.data, dict) and isinstance(document.data.get("$schema", ""), str):
        document.data.pop("$schema", None)
    try:
        prompt = Prompt.model_validate({**document.data, "alias": str(path)} if isinstance(document.data, dict) else document.data)
    except ValidationError as error:
        problems.extend(problem for problem, _ in problems_of(document, error, Prompt))
        return None, problems
    problems.extend(_content_problems(document, prompt))
    return (None if any(p.severity == "error" for p in problems) else prompt), problems


def read_prompt(path: str | Path) -> Prompt:
    """Read one prompt file; raises `InputError` with every mistake in it."""
    prompt, problems = inspect_prompt(path)
    if prompt is None:
        raise InputError.of(p for p in problems if p.severity == "error")
    return prompt


def checked(prompt: Prompt) -> Prompt:
    """A prompt that did not come from a file of its own; raises `InputError` for what a file would be refused for."""
    document = Document(prompt.alias, prompt.to_json(), json.loads(prompt.to_json()))
    if errors := [p for p in _content_problems(document, prompt) if p.severity == "error"]:
        raise InputError.of(errors)
    return prompt


def read_prompts(paths: Iterable[str | Path]) -> list[Prompt]:
    """Read files, and folders recursively; raises `InputError` with every mistake of every file."""
    found = [inspect_prompt(path) for path in prompt_files(paths)]
    errors = [p for _, problems in found for p in problems if p.severity == "error"]
    if errors:
        raise InputError.of(errors)
    return [prompt for prompt, _ in found if prompt is not None]


def prompt_files(paths: Iterable[str | Path]) -> list[Path]:
    """The prompt files that `paths` name: files as they are, folders searched recursively for `*.json`; each once, by its first path.

    Raises `InputError` for a path that does not exist and for a folder without prompts.
    """
    found = [files_at(name) for path in paths for name in spread(path)]
    if wrong := [Problem(str(path), message, remedy) for path, _, message, remedy in found if message]:
        raise InputError.of(wrong)
    return each_once(file for _, files, _, _ in found for file in files)


def each_once(files: Iterable[Path]) -> list[Path]:
    """Every file under the first of its paths."""
    first: dict[Path, Path] = {}
    for file in files:
        first.setdefault(real(file), file)
    return list(first.values())


def require_own_names(prompts: Iterable[Prompt]) -> None:
    """Raises `InputError` when two different prompts have the same alias: a file of samples or figures cannot hold both."""
    known: dict[str, Prompt] = {}
    for prompt in prompts:
        if (other := known.setdefault(prompt.alias, prompt)).digest != prompt.digest:
            raise InputError(
                f"{prompt.alias}: two different prompts have this name, with the requests {_opening(other)} and {_opening(prompt)}. "
                "Rename one of them"
            )


def _opening(prompt: Prompt) -> str:
    """The first words of the request, to show."""
    return repr(prompt.request if len(prompt.request) <= 40 else prompt.request[:39] + "…")


def files_at(path: str | Path) -> tuple[Path, list[Path], str, str]:
    """The path, the prompt files it names, and what is wrong with it (message and remedy, empty when nothing is)."""
    path, place = Path(path), find(path).place
    if not exists(place):
        if glob.has_magic(str(path)):
            return path, [], "matches no *.json prompt and no folder", "check the pattern (it is taken from the working directory)"
        return path, [], "does not exist", look_again(path, "check the path (it is taken from the working directory)")
    if place.is_dir():
        inside = visible_files(path, (".json",))
        return (path, inside, "", "") if inside else (path, [], "holds no *.json prompt", "name a folder with prompts or a file")
    return path, [path], "", ""


def _content_problems(document: Document, prompt: Prompt) -> Iterator[Problem]:
    """What is wrong or doubtful with a prompt whose keys and types are right."""
    yield from _target_problems(document, prompt.targets)
    if not prompt.eos:
        yield from _prefix_problems(document, prompt.targets)
    if prompt.weights:
        yield from _weight_problems(document, prompt.weights, len(prompt.targets))
    yield from _format_doubts(document, prompt)
    yield from _likeness_doubts(document, prompt.targets)


def _target_problems(document: Document, targets: Sequence[str]) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for index, target in enumerate(targets):
        same = first.setdefault(canonical(target), index)
        if not target.strip():
            yield document.problem(("targets", index), f"the target {target!r} is empty", "remove it or write text")
        elif same != index and targets[same] == target:
            yield document.problem(
                ("targets", index), f"the target {target!r} is there twice", "keep one and give it the summed weight"
            )
        elif same != index:
            yield document.problem(
                ("targets", index),
                f"the target {target!r} is {targets[same]!r} once trimmed and normalised (NFC)",
                "keep one of them",
            )


def _prefix_problems(document: Document, targets: Sequence[str]) -> Iterator[Problem]:
    """Without a terminator a target that begins another could never be told from it."""
    order = sorted(range(len(targets)), key=lambda index: targets[index])
    for shorter, longer in pairwise(order):
        if targets[longer].startswith(targets[shorter]) and targets[longer] != targets[shorter]:
            yield document.problem(
                ("targets", shorter), f"with eos: false the target {targets[shorter]!r} begins {targets[longer]!r}",
                "end each target with a sign of its own, such as a closing brace",
            )  # fmt: skip


def _weight_problems(document: Document, weights: Sequence[float], targets: int) -> Iterator[Problem]:
    bad = [index for index, weight in enumerate(weights) if not math.isfinite(weight) or weight < 0]
    if len(weights) != targets:
        yield document.problem(("weights",), f"{many(len(weights), 'weight')} for {many(targets, 'target')}",
                               "give one weight per target, or none for a uniform distribution")  # fmt: skip
    for index in bad:
        yield document.problem(("weights", index), f"the weight {weights[index]:g} is not a probability",
                               "write a finite number that is zero or more")  # fmt: skip
    if all(weight == 0 for weight in weights):
        yield document.problem(("weights",), "all weights are zero", "give at least one target a positive weight")
    elif not bad and math.isinf(total := sum(weights)):
        yield document.problem(("weights",), "the weights are too large to be summed", "divide them all by the same number")
    elif not bad and abs(total - 1) > 1e-6:
        yield document.problem(("weights",), f"the weights sum to {total:g}", "they are divided by it", severity="notice")


def _format_doubts(document: Document, prompt: Prompt) -> Iterator[Problem]:
    """A request that shows one format while the targets have another."""
    braced = sum(target.strip().startswith("{") and target.strip().endswith("}") for target in prompt.targets)
    asks = "{" in prompt.request or "brace" in prompt.request.lower()
    if prompt.targets and braced == len(prompt.targets) and not asks:
        yield document.problem(("request",), "the targets stand in curly braces but the request does not ask for them",
                               "show the format in the request, like this: {answer}", severity="warning")  # fmt: skip
    if "{{" in prompt.request and not any("{{" in target for target in prompt.targets):
        yield document.problem(("request",), "the request has doubled braces", "write them once, only --group-by takes them doubled",
                               severity="warning")  # fmt: skip
    if prompt.targets and asks and not any("{" in target for target in prompt.targets):
        yield document.problem(("request",), "the request shows curly braces but no target has any",
                               "write the targets in the format the request asks for", severity="warning")  # fmt: skip


def _likeness_doubts(document: Document, targets: Sequence[str]) -> Iterator[Problem]:
    """Targets that differ in case, spaces and punctuation only, if they are many."""
    plain = [re.sub(r"[\W_]+", "", target).casefold() for target in targets]
    alike = len(plain) - len({text or str(index) for index, text in enumerate(plain)})
    if alike >= 3 and alike > 0.2 * len(targets):
        yield document.problem(("targets",), f"{alike} of {len(targets)} targets differ from another only in case, spaces or punctuation",
                               "check that all of them are meant", severity="warning")  # fmt: skip
