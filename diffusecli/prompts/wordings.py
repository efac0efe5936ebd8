"""Many wordings of the question that a distribution answers, from the templates in `wordings/`.

A template is a line of `<family>.txt`; its `{placeholders}` are facts that the family gives (`facts.py`). One that asks for a fact that a call does
not have is left out for it. What is asked about the form of the answer is a clause of its own, from `forms-*.txt`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from diffusecli.prompts.distributions import Distribution
from diffusecli.prompts.facts import with_article
from diffusecli.prompts.request_wording import BRACES, Wording, form_sentence
from diffusecli.system.errors import InputError, many

_BANK = Path(__file__).with_name("wordings")
_PLACE = re.compile(r"\{([A-Za-z_]+)\}")


def questions(distribution: Distribution) -> tuple[str, ...]:
    """All wordings of the distribution's question, its own request first, without a word on the form of the answer."""
    filled = [_filled(template, distribution.facts) for template in _templates(distribution.family)]
    return tuple(dict.fromkeys([distribution.request, *(text for text in filled if text is not None)]))


def clauses(wrap: str) -> tuple[str, ...]:
    """Templates of what can be asked about the form of the answer; each holds `{question}` once. The usual sentence comes first."""
    kind = "braces" if wrap == BRACES else "bare" if wrap.strip() == "%s" else "wrap"
    lines = [line if "{question}" in line else "{question}" + ("" if line[0] == "\n" else " ") + line for line in _templates(f"forms-{kind}")]
    return ("", *lines)


def request_of(question: str, clause: str, distribution: Distribution, wrap: str, example: str) -> str:
    """The question with a clause on the form, `example` being one of the outcomes. An empty clause is the usual sentence."""
    if not clause:
        return f"{question} {form_sentence(wrap, distribution.noun)}"
    noun = distribution.noun
    facts = {"noun": noun, "a_noun": with_article(noun), "shown": wrap.replace("%s", noun), "example": wrap.replace("%s", example)}
    before, after = clause.split("{question}")
    ended = question if not after.startswith(" ") or re.search(r"[.?!:;,](?:[\"')\]])?$", question) else f"{question}."
    return f"{_filled(before, facts)}{ended}{_filled(after, facts)}"


def draw_wordings(
    distribution: Distribution, wording: Wording, count: int, held_out: int, seed: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """`count` requests to train on and `held_out` ones to measure on, all different, drawn by `seed`.

    Questions come equally often, up to one, and so do clauses on the form. Held-out requests share neither question nor clause with trained
    ones, as far as there is more than one of each. The first request is the distribution's own. Raises `InputError` for more than there are.
    """
    rng = random.Random(seed)
    own, *others = questions(distribution)
    usual, *forms = clauses(wording.wrap)
    rng.shuffle(others)
    rng.shuffle(forms)
    kept_questions, other_questions = _split([own, *others], count, held_out)
    kept_forms, other_forms = _split([usual, *forms], count, held_out)
    outcomes = [text for text, weight in zip(distribution.outcomes, distribution.weights or distribution.outcomes, strict=True) if weight]
    drawn = []
    for number, option, asked, shapes in (
        (count, "--wordings", kept_questions, kept_forms),
        (held_out, "--held-out", other_questions, other_forms),
    ):
        pairs = _pairs(asked, shapes, number, option)
        examples = [random.Random(f"{seed} {question} {form}").choice(outcomes) for question, form in pairs]  # whatever the others are
        drawn.append(tuple(request_of(*pair, distribution, wording.wrap, example) for pair, example in zip(pairs, examples, strict=True)))
    return drawn[0], drawn[1]


def _split(texts: Sequence[str], count: int, held_out: int) -> tuple[Sequence[str], Sequence[str]]:
    """Texts to train with and texts to hold out: those that training has no use for, and a quarter at least where there are enough."""
    if not held_out or len(texts) == 1:
        return texts, texts
    spare = max(len(texts) - count, len(texts) // 4, 1)
    apart = min(held_out, spare, len(texts) - 1)
    return texts[: len(texts) - apart], texts[len(texts) - apart :]


def _pairs(asked: Sequence[str], forms: Sequence[str], count: int, option: str) -> list[tuple[str, str]]:
    """`count` different pairs: each question once before one comes twice, the clauses in turn."""
    most = len(asked) * len(forms)
    if count > most:
        raise InputError(f"{option} {count}: there are {many(most, 'wording')} of it. Ask for at most {most}")
    pairs = []
    for index in range(count):
        turn, place = divmod(index, len(asked))
        pairs.append((asked[place], forms[(place + turn) % len(forms)]))
    return pairs


def _filled(template: str, facts: Mapping[str, str]) -> str | None:
    """The template with its facts; None where one is missing. A name with a capital takes its fact with one."""

    def fact(match: re.Match[str]) -> str:
        value = facts[match[1].lower()]
        return value[:1].upper() + value[1:] if match[1][0].isupper() else value

    names = _PLACE.findall(template)
    return _PLACE.sub(fact, template) if all(name.lower() in facts for name in names) else None


@lru_cache
def _templates(name: str) -> tuple[str, ...]:
    """The lines of a file of the bank; none where it has no such file."""
    path = _BANK / f"{name}.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if name and path.is_file() else []
    return tuple(line.replace("\\n", "\n") for line in lines if line and not line.startswith("#"))
