"""A prompt: a request in one or several wordings, the target strings a model should answer it with, and their weights.

Knows nothing of tokens or models; see `encoding.py` for those. `prompt_files.py` finds and reads the files, `prompt_checks.py` checks what is in them.

How prompts are identified: `digest` is the hash of the content, `alias` is the name (the path of its file). One alias
can have two digests, when the file was edited between two commands. One digest can have two aliases, when the file was copied.

- In memory, figures and samples are kept in the order of the prompts, or under `Prompt.key`, both together.
- On disk, files name prompts by alias, as the original does. A file never holds two prompts of the same alias
  (`require_own_names`) and the digests are stored next to it. A figure is read back only for the digest it was recorded for.
- A prompt with several requests has several wordings, each a separate prompt with one request (`Prompt.wordings`). Its
  alias is that of the whole prompt and a number: `dice.json#2`; `dice.json#held-out-1` where the request is only measured.
- One file under several paths (`./p.json`, an absolute path, a link) is one prompt, named by the first path (`prompt_files.prompt_files`).
- Reports add the first digits of the digest to names that two prompts share (`evaluation.names.prompt_names`).

The system prompt and the chat template of a config are part of a model's input, but not of the digest. They are compared
separately, as `chat` in `run.json` and in the settings of samples.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

from diffusecli.prompts.target_tables import TargetTable
from diffusecli.prompts.templates import Template
from diffusecli.system.errors import InputError, shortened
from diffusecli.system.notebook import Columns, frame, html_table

if TYPE_CHECKING:
    from pandas import DataFrame


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _as_it_is(value: Any) -> Any:
    """No conversion: `prompt_files.py` has already replaced a table by a list."""
    return value


def _one_as_text(texts: str | tuple[str, ...]) -> str | tuple[str, ...]:
    """A list of one request or spelling is that text, so that both are the same prompt."""
    return texts[0] if isinstance(texts, tuple) and len(texts) == 1 else texts


Request = Annotated[str, Field(min_length=1)]


Outcome = Annotated[
    str | Annotated[tuple[str, ...], Field(strict=False, json_schema_extra={"minItems": 1})], AfterValidator(_one_as_text)
]


class Message(BaseModel):
    """A turn of a conversation, as in the formats of OpenAI and Hugging Face."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    role: Literal["system", "user", "assistant"] = Field(description="Author of the message.")
    content: str = Field(description="Text of the message.")


class Draws(BaseModel):
    """Several draws in one answer."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    n: int = Field(ge=2, le=200, description="Number of draws.")
    separator: str = Field(default=", ", min_length=1, description="Text between two draws.")
    replace: bool = Field(default=True, description="Whether a target may occur again. false: each at most once.")
    wrap: str = Field(default="%s", description="Text around the whole answer, with %s in its place.")

    @property
    def template(self) -> Template:
        """The template that splits an answer into draws."""
        before, _, after = self.wrap.partition("%s")
        texts = (before, *[self.separator] * (self.n - 1), after)
        return Template(tuple(f"draw {place}" for place in range(1, self.n + 1)), texts)


class IndependentField(BaseModel):
    """A field of a record that does not depend on the others."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    values: Annotated[tuple[str, ...], Field(strict=False, json_schema_extra={"minItems": 1})] = Field(
        description="The values of the field."
    )
    weights: Annotated[tuple[float, ...] | None, Field(strict=False)] = Field(
        default=None, description="One number per value, divided by their sum. Missing: uniform."
    )

    @cached_property
    def probabilities(self) -> tuple[float, ...]:
        """The weights normalised to sum to 1, one per value."""
        return _shares(self.weights, len(self.values))

    @property
    def entropy(self) -> float:
        """H of its distribution in nats."""
        return _entropy(self.probabilities)


class Prompt(BaseModel):
    """A request with its target distribution. Files of the original format are read unchanged."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=False,
        json_schema_extra={"oneOf": [{"required": ["request"]}, {"required": ["messages"]}]},
    )  # fmt: skip

    request: Annotated[
        Request | Annotated[tuple[Request, ...], Field(strict=False, json_schema_extra={"minItems": 1})],
        AfterValidator(_one_as_text),
    ] = Field(
        default="", description="The user's request to the model. A list: the same question in several wordings, all trained."
    )
    held_out_requests: Annotated[tuple[Request, ...], Field(strict=False)] = Field(
        default=(), description="More wordings of the question that are only measured, never trained."
    )
    messages: Annotated[tuple[Message, ...], Field(strict=False)] = Field(
        default=(), description="A conversation instead of the request: turns with role and content. The last one is the user's."
    )
    response: Annotated[
        tuple[str, ...], BeforeValidator(_one_or_many, json_schema_input_type=str | list[str]), Field(strict=False)
    ] = Field(
        default=("",),
        description="Prefix of the answer before each target. Several prefixes are equally likely variants.",
    )
    outcomes: Annotated[
        tuple[Outcome, ...], BeforeValidator(_as_it_is, json_schema_input_type=list[Outcome] | TargetTable), Field(strict=False)
    ] = Field(
        alias="targets",
        description="The valid answers. A list: spellings of one target. May be empty in a prompt that is only sampled. "
        "In a file also a table that contains them.",
    )
    weights: Annotated[tuple[float, ...] | None, Field(strict=False)] = Field(
        default=None, description="One number per target, divided by their sum. Missing or empty: uniform."
    )
    eos: bool = Field(
        default=True,
        description="Whether the answer ends after the target. false: the answer may continue.",
    )
    system: str | None = Field(
        default=None, description="System prompt of this prompt, instead of the config's. Empty: a system message without text."
    )
    template: str | None = Field(
        default=None,
        description="How a target is built from fields: `{name}, {age}`. Answers are split with it. Write braces in the text twice.",
    )
    draws: Draws | None = Field(default=None, description="Several draws in one answer. Targets and weights are those of one draw.")
    independent: dict[str, IndependentField] = Field(
        default={}, description="Fields of the template that do not depend on the others, with their values. The targets have `{field}` in "
        "their place.",
    )  # fmt: skip
    alias: str = Field(default="", exclude=True, description="The path the prompt was read from. Never in the file.")
    _whole: str = PrivateAttr("")  # of a wording: the alias of the prompt with all of them

    def __hash__(self) -> int:
        """By content: equal prompts have equal digests."""
        return hash(self.digest)

    @property
    def requests(self) -> tuple[str, ...]:
        """The trained wordings. () if the prompt has messages."""
        return (self.request,) if isinstance(self.request, str) and self.request else tuple(self.request)

    @property
    def question(self) -> str:
        """The last user message, in the first wording."""
        return self.messages[-1].content if self.messages else next(iter(self.requests), "")

    @property
    def whole(self) -> str:
        """The alias of the whole prompt if this is a wording, else its own."""
        return self._whole or self.alias

    @property
    def own_system(self) -> str | None:
        """The prompt's system prompt, from its field or its first message."""
        first = self.messages[0] if self.messages else None
        return first.content if first is not None and first.role == "system" else self.system

    @property
    def turns(self) -> tuple[Message, ...]:
        """The conversation up to the answer, without the system prompt. With several wordings, the first."""
        if not self.messages:
            return (Message(role="user", content=self.question),)
        return self.messages[self.messages[0].role == "system" :]

    @property
    def trained_wordings(self) -> int:
        """The number of `wordings`, without creating them. A conversation counts as one."""
        return max(1, len(self.requests))

    @property
    def wordings(self) -> tuple[Prompt, ...]:
        """A prompt with one request for each trained wording. Only itself if it has no other wording.

        >>> die = Prompt(request=("Roll a die.", "Throw a die."), targets=("1", "2"), alias="die.json")
        >>> [(wording.alias, wording.request) for wording in die.wordings]
        [('die.json#1', 'Roll a die.'), ('die.json#2', 'Throw a die.')]
        """
        if len(self.requests) < 2 and not self.held_out_requests:
            return (self,)
        return tuple(self._worded(request, str(number)) for number, request in enumerate(self.requests, 1))

    @property
    def held_out(self) -> tuple[Prompt, ...]:
        """A prompt with one request for each held-out wording."""
        return tuple(self._worded(request, f"held-out-{n}") for n, request in enumerate(self.held_out_requests, 1))

    def _worded(self, request: str, name: str) -> Prompt:
        alias = f"{self.alias}#{name}" if self.alias else ""  # without a name it is named by its request
        wording = self.model_copy(update={"request": request, "held_out_requests": (), "alias": alias})
        wording._whole = self.alias
        return wording

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """The name of each target: its first spelling.

        >>> Prompt(request="A number.", targets=(("{seven}", "7"), "{8}")).targets
        ('{seven}', '{8}')
        """
        return tuple(outcome if isinstance(outcome, str) else next(iter(outcome), "") for outcome in self.outcomes)

    @cached_property
    def spellings(self) -> tuple[tuple[str, ...], ...]:
        """All spellings of each target, its name first."""
        return tuple((outcome,) if isinstance(outcome, str) else tuple(outcome) for outcome in self.outcomes)

    @cached_property
    def record(self) -> Template | None:
        """The template that splits answers into fields. None for plain answers. Raises `InputError` for an invalid template."""
        if self.draws is not None:
            return self.draws.template
        return None if self.template is None else Template.of(self.template)

    @property
    def every_spelling(self) -> tuple[str, ...]:
        """The spellings of all targets, one after the other."""
        return tuple(spelling for spellings in self.spellings for spelling in spellings)

    @property
    def in_parts(self) -> bool:
        """Whether answers are combinations that are not listed: several draws, or targets with independent fields."""
        return self.draws is not None or bool(self.independent)

    @cached_property
    def probabilities(self) -> tuple[float, ...]:
        """The weights normalised to sum to 1, one per target."""
        return _shares(self.weights, len(self.targets))

    @property
    def variants(self) -> tuple[str, ...]:
        """The distinct prefixes of the answer. `("",)` without any."""
        return tuple(dict.fromkeys(self.response)) or ("",)

    @property
    def most_tokens(self) -> int:
        """An upper bound on the tokens of the longest target, for servers, which hide their tokenizer; 0 without targets.

        A token is at least one byte. A space before the text and the end take one token each.
        """
        longest = max((len(text.encode()) for text in self.every_spelling), default=0)
        if self.draws is not None:
            longest = len(self.draws.template.fill([""] * self.draws.n).encode()) + self.draws.n * longest
        longest += sum(max((len(value.encode()) for value in field.values), default=0) for field in self.independent.values())
        return max(len(start.encode()) for start in self.variants) + longest + 2 if longest else 0

    @property
    def entropy(self) -> float:
        """H of the target distribution in nats; 0 p ln 0 counts as 0."""
        return _entropy(self.probabilities)

    def expected_distinct(self, n: int) -> float:
        """S = sum 1 - (1 - p_i)^N: expected number of distinct targets in N independent draws.

        >>> round(Prompt(request="r", targets=("a", "b")).expected_distinct(10), 3)
        1.998
        """
        return math.fsum(1 - (1 - p) ** n for p in self.probabilities)

    @cached_property
    def digest(self) -> str:
        """sha256 over everything that defines the prompt, whatever its file is called."""
        fields = {key: value for key, value in self.model_dump(by_alias=True).items() if (key, value) not in _NEWER_FIELDS}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    @property
    def key(self) -> tuple[str, str]:
        """Identifies the prompt among edited and copied ones: alias and digest."""
        return self.alias, self.digest

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other fields, which are not checked. Clears cached values that depend on them."""
        changed = {_FIELDS.get(key, key): value for key, value in (update or {}).items()}
        copied = super().model_copy(update=changed, deep=deep)
        if set(changed) - {"alias"}:
            for name in ("targets", "spellings", "probabilities", "digest", "record"):
                copied.__dict__.pop(name, None)
        return copied

    def to_frame(self) -> DataFrame:
        """A data frame with a row per target: `target` and `weight`, normalised."""
        return frame(self._columns())

    def _repr_html_(self) -> str:
        """HTML for notebooks."""
        return html_table(self._columns(), self.question)

    def _columns(self) -> Columns:
        """Targets and weights. Weights are nan in an invalid prompt: it is checked when used."""
        sound = self.weights is None or (len(self.weights) == len(self.targets) and sum(self.weights) > 0)
        return {"target": self.targets, "weight": self.probabilities if sound else [math.nan] * len(self.targets)}

    def to_json(self) -> str:
        """The text of the prompt file: only values that differ from the defaults, in the original order."""
        fields = self.model_dump(mode="json", by_alias=True)
        if self.weights is None:
            del fields["weights"]
        if self.eos:
            del fields["eos"]
        for key, default in _NEWER_FIELDS:
            if getattr(self, key) == default:
                del fields[key]
        if self.messages:
            del fields["request"]
        return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"


def _shares(weights: tuple[float, ...] | None, count: int) -> tuple[float, ...]:
    """Weights divided by their sum; the same for each of `count` without any."""
    if not weights:
        return (1.0 / count,) * count if count else ()
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)


def _entropy(probabilities: Iterable[float]) -> float:
    """H in nats; 0 ln 0 counts as 0."""
    return math.fsum(-p * math.log(p) for p in probabilities if p > 0)


_NEWER_FIELDS: tuple[tuple[str, Any], ...] = (
    ("independent", {}),
    ("draws", None),
    ("template", None),
    ("system", None),
    ("held_out_requests", ()),
    ("messages", ()),
)
"""Newer fields with their defaults. At its default, a field is neither in files nor in digests."""


_FIELDS = {"targets": "outcomes"}
"""File key -> field name, where they differ: `targets` holds lists of spellings in files, and names in memory."""


def require_own_names(prompts: Iterable[Prompt]) -> None:
    """Raise `InputError` if two different prompts have the same alias: a file of samples or figures cannot hold both."""
    known: dict[str, Prompt] = {}
    for prompt in prompts:
        if (other := known.setdefault(prompt.alias, prompt)).digest != prompt.digest:
            raise InputError(
                f"{prompt.alias}: two different prompts have this name. Their requests are {_opening(other)} and {_opening(prompt)}. "
                "Rename one of them"
            )


def _opening(prompt: Prompt) -> str:
    """The first words of the request, for messages."""
    return repr(shortened(prompt.question, 40))
