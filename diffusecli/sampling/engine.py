"""The interface of engines: requests, and how engines pass on what they draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from diffusecli.prompts.answers import Answers

if TYPE_CHECKING:
    from diffusecli.models.source import ModelSource
    from diffusecli.prompts.prompt import Prompt
    from diffusecli.runs.run_dir import RunDir
    from diffusecli.sampling.settings import SamplingSettings, Watch


Arrived = Callable[[Answers, int], None]
"""Receives counted answers (those cut at the limit separately) and the tokens fed for them."""


@dataclass(frozen=True)
class Wanted:
    """A request for answers to one prompt, with callbacks."""

    prompt: Prompt  # a single request, or a conversation
    count: int  # total number
    have: Answers  # those already drawn
    arrived: Arrived
    watch: Watch
    stream: int = 0  # the same request with another number gets other random numbers
    pool: str = ""  # requests of one pool that are drawn in the same passes report their progress as a total; "": alone


class Engine(Protocol):
    """Draws answers from the model's own distribution, changed only by the settings."""

    @property
    def about(self) -> dict[str, Any]:
        """Engine, model and everything else that its samples depend on, for the metadata file."""

    def limit(self, prompt: Prompt) -> int:
        """The maximum tokens of an answer to this prompt. An answer that reaches it is unfinished."""

    def draw(self, wanted: Wanted) -> None:
        """Draw the missing answers, and pass them on as they arrive."""


@runtime_checkable
class JointEngine(Protocol):
    """An engine that is faster with several prompts at once. Its answers do not depend on the other prompts."""

    def draw_all(self, wanted: Sequence[Wanted]) -> None:
        """Like `Engine.draw` for each prompt."""


class _WithSettings(Engine, Protocol):
    """An engine with settings, which include the number of answers."""

    settings: SamplingSettings


def drawn(engine: _WithSettings, prompt: Prompt) -> tuple[Answers, int]:
    """Draw all answers to one prompt: counts, and the tokens fed."""
    counts = Answers()
    fed = 0

    def arrived(some: Answers, tokens: int) -> None:
        nonlocal fed
        counts.update(some)
        fed += tokens

    engine.draw(Wanted(prompt, engine.settings.n_generations, Answers(), arrived, lambda _: None))
    return counts, fed


@dataclass(frozen=True)
class EngineRequest:
    """The arguments to create an engine."""

    source: ModelSource  # the base model
    adapter: RunDir | None  # None: the base model itself
    model: str  # the model's name at the engine
    settings: SamplingSettings
    max_rows: int | None  # batch size of a loaded model; None: as many as fit
    notice: Callable[[str], None]
    home: RunDir | None = None  # the run that the sample files belong to
