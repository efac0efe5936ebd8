"""A distribution of the mixture as a prompt: a question, a clause on the form of the answer, and targets in that form."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from diffusecli.files.documents import Document
from diffusecli.prompts.answer_forms import BRACES, clauses, form_sentence, with_form
from diffusecli.prompts.distributions import Distribution
from diffusecli.prompts.mixture.texts import question_templates, with_phrases
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.prompt_checks import content_problems
from diffusecli.prompts.wording_bank import filled, placeholders

_IN_BRACES = 0.75
_OTHER_WRAPS = (
    (8, "%s"), (3, "[%s]"), (3, "Answer: %s"), (1, "(%s)"), (1, "<%s>"), (1, "**%s**"), (1, "Result: %s"),
    (1, "<answer>%s</answer>"), (1, "=> %s"), (1, '{"answer": "%s"}'), (1, "My answer is %s."), (1, "[[%s]]"),
)  # fmt: skip

Selection = Callable[[Sequence[str]], Sequence[str]]
"""Which of all templates may be used: those that are trained, or those that are reserved."""


@dataclass(frozen=True)
class Asked:
    """A prompt, and what it was made of."""

    prompt: Prompt
    distribution: Distribution
    question: str  # a template
    clause: str

    @property
    def request(self) -> str:
        """What is asked, in the one wording that the prompt has."""
        return self.prompt.question


def asked(family: str, distribution: Distribution, questions: Selection, forms: Selection, rng: Random) -> Asked | None:
    """The prompt for a distribution in a wording that is drawn; None where no question fits it, or a check finds a fault."""
    known = set(distribution.facts)
    fitting = [text for text in questions(question_templates(family, distribution)) if known.issuperset(placeholders(text))]
    if not fitting:
        return None
    question = rng.choice(fitting)
    wrap = BRACES if rng.random() < _IN_BRACES else _weighted(_OTHER_WRAPS, rng)
    clause = rng.choice(forms(clauses(wrap)))
    text = filled(with_phrases(question, rng), distribution.facts)
    request = _with_form(text, clause, wrap, distribution.noun, rng.choice(distribution.outcomes))
    targets = tuple(wrap.replace("%s", outcome) for outcome in distribution.outcomes)
    prompt = Prompt(request=request, targets=targets, weights=distribution.weights)
    return Asked(prompt, distribution, question, clause) if _is_sound(prompt) and "Answer: Answer:" not in request else None


def _with_form(question: str, clause: str, wrap: str, noun: str, example: str) -> str:
    """The question with a clause on the form of the answer, which gets a line of its own below several lines."""
    if "\n" not in question:
        return with_form(question, clause, wrap, noun, example)
    if not clause:
        return f"{question}\n{form_sentence(wrap, noun)}"
    return with_form(question, clause.replace("{question} ", "{question}\n", 1), wrap, noun, example)


def _is_sound(prompt: Prompt) -> bool:
    """Whether `diffuse validate` has nothing to say."""
    return not any(content_problems(Document("", "", json.loads(prompt.to_json())), prompt))


def _weighted(table: Sequence[tuple[int, str]], rng: Random) -> str:
    return rng.choices([text for _, text in table], [weight for weight, _ in table])[0]
