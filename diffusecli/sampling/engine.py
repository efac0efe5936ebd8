"""What all engines keep: what they are asked, and how they hand over what they draw."""

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
"""Takes answers that are final, counted, those that were cut at the limit apart, and the tokens they cost."""


@dataclass(frozen=True)
class Wanted:
    """Answers to one prompt, and who takes them."""

    prompt: Prompt  # with one request, or a conversation
    count: int  # how many in all
    have: Answers  # those of them that are there already
    arrived: Arrived
    watch: Watch


class Engine(Protocol):
    """Draws answers. The law of what it draws is the model's own, bent by the settings alone."""

    @property
    def about(self) -> dict[str, Any]:
        """Engine, model and whatever else its samples depend on, for the file beside them."""

    def limit(self, prompt: Prompt) -> int:
        """The most tokens of an answer to this prompt; one that reaches it is unfinished."""

    def draw(self, wanted: Wanted) -> None:
        """Draw the answers that are missing, and hand them over as they come."""


@runtime_checkable
class JointEngine(Protocol):
    """An engine that is faster when it has several prompts at once. What it draws does not depend on which they are."""

    def draw_all(self, wanted: Sequence[Wanted]) -> None:
        """As `Engine.draw` for each of them."""


class _WithSettings(Engine, Protocol):
    """An engine that says how many answers a prompt gets."""

    settings: SamplingSettings


def drawn(engine: _WithSettings, prompt: Prompt) -> tuple[Answers, int]:
    """All answers to one prompt, counted, and the tokens fed for them."""
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
    """What an engine is made for."""

    source: ModelSource  # of the base model
    adapter: RunDir | None  # None: the base model itself
    model: str  # what it is called where it runs
    settings: SamplingSettings
    max_rows: int | None  # fed at once to a loaded model; None: what fits
    notice: Callable[[str], None]
    home: RunDir | None = None  # the run that the samples will be files of
