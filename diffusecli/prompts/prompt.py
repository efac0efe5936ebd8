"""A prompt: a request in one or several wordings, the target strings a model should answer it with, and their weights.

Knows nothing of tokens or models; see `encoding.py` for those. `prompt_files.py` finds and reads the files, `prompt_checks.py` checks what is in them.

Which prompt is which: `digest` is what a prompt asks and expects, `alias` is what it is called (the path of its file). One alias
can have two digests, when the file was edited between two commands. One digest can have two aliases, when the file was copied.

- In memory, figures and samples are kept in the order of the prompts, or under `Prompt.key`, both together.
- On disk, files name prompts by alias, as the original does. A file never holds two prompts of the same alias
  (`require_own_names`) and the digests are beside it. A figure is read back only for the digest that it was recorded for.
- A prompt with several requests is asked in several wordings, each a prompt of its own with one request (`Prompt.wordings`). Its
  alias is that of the whole and a number: `dice.json#2`; `dice.json#held-out-1` where the request is only measured.
- One file under several paths (`./p.json`, an absolute path, a link) is one prompt, named by the first path (`prompt_files.prompt_files`).
- Reports add the first digits of the digest to names that two prompts share (`evaluation.names.prompt_names`).

The system text and the chat template of a config are part of what a model is asked, but not of the digest: they are compared
beside it, as `chat` in `run.json` and in the settings of samples.
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
    """Files are read before (`prompt_files.py`): a table in place of the list is a list by now."""
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

    role: Literal["system", "user", "assistant"] = Field(description="Who says it.")
    content: str = Field(description="What is said.")


class Draws(BaseModel):
    """Several draws in one answer."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    n: int = Field(ge=2, le=200, description="How many.")
    separator: str = Field(default=", ", min_length=1, description="What stands between two draws.")
    replace: bool = Field(default=True, description="Whether a target may come again; false: each comes once at most.")
    wrap: str = Field(default="%s", description="What surrounds the whole answer, %s in its place.")

    @property
    def template(self) -> Template:
        """How an answer is taken apart: a field for each draw."""
        before, _, after = self.wrap.partition("%s")
        texts = (before, *[self.separator] * (self.n - 1), after)
        return Template(tuple(f"draw {place}" for place in range(1, self.n + 1)), texts)


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
        default="", description="What the user asks of the model. A list: the same question in several wordings, all trained."
    )
    held_out_requests: Annotated[tuple[Request, ...], Field(strict=False)] = Field(
        default=(), description="Further wordings of the question that are only measured, never trained."
    )
    messages: Annotated[tuple[Message, ...], Field(strict=False)] = Field(
        default=(), description="A conversation in place of the request: turns with role and content, the last one the user's."
    )
    response: Annotated[
        tuple[str, ...], BeforeValidator(_one_or_many, json_schema_input_type=str | list[str]), Field(strict=False)
    ] = Field(
        default=("",),
        description="Beginnings of the answer, put before each target; several are equally likely variants.",
    )
    outcomes: Annotated[
        tuple[Outcome, ...], BeforeValidator(_as_it_is, json_schema_input_type=list[Outcome] | TargetTable), Field(strict=False)
    ] = Field(
        alias="targets",
        description="The strings to answer with. A list: spellings of one target. May be empty in a prompt that is only sampled. "
        "In a file: or the table that holds them.",
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
    template: str | None = Field(
        default=None,
        description="How fields make a target: `{name}, {age}`. Answers are taken apart by it. Braces of the text are written twice.",
    )
    draws: Draws | None = Field(default=None, description="Several draws in one answer; targets and weights are those of one draw.")
    alias: str = Field(default="", exclude=True, description="The path the prompt was read from; never in the file.")
    _whole: str = PrivateAttr("")  # of a wording: the alias of the prompt with all of them

    @property
    def requests(self) -> tuple[str, ...]:
        """The wordings that are trained; () where the prompt has messages."""
        return (self.request,) if isinstance(self.request, str) and self.request else tuple(self.request)

    @property
    def question(self) -> str:
        """What the user says last, in the first wording."""
        return self.messages[-1].content if self.messages else next(iter(self.requests), "")

    @property
    def whole(self) -> str:
        """The alias of the prompt that this is a wording of; its own where it is none."""
        return self._whole or self.alias

    @property
    def own_system(self) -> str | None:
        """The prompt's system text, as a field or as the first of its messages."""
        first = self.messages[0] if self.messages else None
        return first.content if first is not None and first.role == "system" else self.system

    @property
    def turns(self) -> tuple[Message, ...]:
        """The conversation up to the answer, without the system text. Of several wordings the first."""
        if not self.messages:
            return (Message(role="user", content=self.question),)
        return self.messages[self.messages[0].role == "system" :]

    @property
    def trained_wordings(self) -> int:
        """How many `wordings` there are, without making them; a conversation is one."""
        return max(1, len(self.requests))

    @property
    def wordings(self) -> tuple[Prompt, ...]:
        """A prompt with one request for each wording that is trained; itself where it has no other wording.

        >>> die = Prompt(request=("Roll a die.", "Throw a die."), targets=("1", "2"), alias="die.json")
        >>> [(wording.alias, wording.request) for wording in die.wordings]
        [('die.json#1', 'Roll a die.'), ('die.json#2', 'Throw a die.')]
        """
        if len(self.requests) < 2 and not self.held_out_requests:
            return (self,)
        return tuple(self._worded(request, str(number)) for number, request in enumerate(self.requests, 1))

    @property
    def held_out(self) -> tuple[Prompt, ...]:
        """A prompt with one request for each wording that is only measured."""
        return tuple(self._worded(request, f"held-out-{n}") for n, request in enumerate(self.held_out_requests, 1))

    def _worded(self, request: str, name: str) -> Prompt:
        alias = f"{self.alias}#{name}" if self.alias else ""  # without a name it is called by its request
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
        """All spellings of each target, its name first. A target that is written in one way only has one."""
        return tuple((outcome,) if isinstance(outcome, str) else tuple(outcome) for outcome in self.outcomes)

    @cached_property
    def record(self) -> Template | None:
        """How answers are taken apart into fields; None where they are single texts. Raises `InputError` for no sound template."""
        if self.draws is not None:
            return self.draws.template
        return None if self.template is None else Template.of(self.template)

    @property
    def every_spelling(self) -> tuple[str, ...]:
        """The spellings of all targets, one after the other."""
        return tuple(spelling for spellings in self.spellings for spelling in spellings)

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
        longest = max((len(text.encode()) for text in self.every_spelling), default=0)
        if self.draws is not None:
            longest = len(self.draws.template.fill([""] * self.draws.n).encode()) + self.draws.n * longest
        return max(len(start.encode()) for start in self.variants) + longest + 2 if longest else 0

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
        fields = {key: value for key, value in self.model_dump(by_alias=True).items() if (key, value) not in _YOUNGER}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    @property
    def key(self) -> tuple[str, str]:
        """Which prompt this is, among edited and copied ones: alias and digest."""
        return self.alias, self.digest

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other fields, which are not checked. What follows from them is worked out anew."""
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
        """What notebooks show."""
        return html_table(self._columns(), self.question)

    def _columns(self) -> Columns:
        """The weights are nan in a prompt that is not sound: checks come when it is used."""
        sound = self.weights is None or (len(self.weights) == len(self.targets) and sum(self.weights) > 0)
        return {"target": self.targets, "weight": self.probabilities if sound else [math.nan] * len(self.targets)}

    def to_json(self) -> str:
        """The prompt file's text: only what differs from the defaults, in the original's order."""
        fields = self.model_dump(mode="json", by_alias=True)
        if self.weights is None:
            del fields["weights"]
        if self.eos:
            del fields["eos"]
        for key, default in _YOUNGER:
            if getattr(self, key) == default:
                del fields[key]
        if self.messages:
            del fields["request"]
        return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"


_YOUNGER = (("draws", None), ("template", None), ("system", None), ("held_out_requests", ()), ("messages", ()))
"""Fields that the first prompts did not have, with what they are then: neither in files nor in digests."""


_FIELDS = {"targets": "outcomes"}
"""Keys of files that are fields by another name: `targets` holds lists of spellings there, and names in memory."""


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
    return repr(shortened(prompt.question, 40))
