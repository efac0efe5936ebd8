"""A prompt: a request, the target strings a model should answer it with, and their weights.

Knows nothing of tokens or models; see `encoding.py` for those. `prompt_files.py` finds and reads the files, `prompt_checks.py` checks what is in them.

Which prompt is which: `digest` is what a prompt asks and expects, `alias` is what it is called (the path of its file). One alias
can have two digests, when the file was edited between two commands. One digest can have two aliases, when the file was copied.

- In memory, figures and samples are kept in the order of the prompts, or under `Prompt.key`, both together.
- On disk, files name prompts by alias, as the original does. A file never holds two prompts of the same alias
  (`require_own_names`) and the digests are beside it. A figure is read back only for the digest that it was recorded for.
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
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from diffusecli.system.errors import InputError
from diffusecli.system.notebook import Columns, frame, html_table

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
        return frame(self._columns())

    def _repr_html_(self) -> str:
        """What notebooks show."""
        return html_table(self._columns(), self.request)

    def _columns(self) -> Columns:
        """The weights are nan in a prompt that is not sound: checks come when it is used."""
        sound = self.weights is None or (len(self.weights) == len(self.targets) and sum(self.weights) > 0)
        return {"target": self.targets, "weight": self.probabilities if sound else [math.nan] * len(self.targets)}

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
