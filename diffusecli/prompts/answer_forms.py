"""The form of the answer in a request: a sentence, or another clause from the bank.

Knows the wrap around an outcome; knows nothing of files and prompts.
"""

from __future__ import annotations

import re

from diffusecli.prompts.facts import with_article
from diffusecli.prompts.wording_bank import filled, templates

BRACES = "{%s}"
_ENDS = re.compile(r"[.?!:;,…][\"')\]]?$")


def form_sentence(wrap: str, noun: str, answer: str = "") -> str:
    """The sentence that usually ends a request. `answer` names an answer of several values, which `noun` shows.

    >>> form_sentence("%s", "name, age", "record")
    "Output only the record, like this: name, age. Don't output code."
    """
    shown = wrap.replace("%s", noun)
    if answer and wrap.strip() == "%s":
        return f"Output only the {answer}, like this: {shown}. Don't output code."
    noun = answer or noun
    if wrap == BRACES:
        return f"Output only the {noun} between two curly braces, like this: {shown}. Don't output code."
    if wrap.strip() == "%s":
        return f"Output only the {noun}. Don't output code."
    return f"Output only the {noun} in exactly this form: {shown}. Don't output code."


def clauses(wrap: str) -> tuple[str, ...]:
    """All clauses on the form, as templates with `{question}`. The usual sentence, as "", comes first."""
    kind = "braces" if wrap == BRACES else "bare" if wrap.strip() == "%s" else "wrap"
    after = (
        "{question}" + ("" if line.startswith("\n") else " ") + line
        for line in templates(f"forms-{kind}")
        if "{question}" not in line
    )
    around = (line for line in templates(f"forms-{kind}") if "{question}" in line)
    return ("", *after, *around)


def with_form(question: str, clause: str, wrap: str, noun: str, example: str, answer: str = "") -> str:
    """A question with a clause on the form. `example` is one of the outcomes.

    >>> with_form("Roll a die", "{question} Write just {shown}.", "{%s}", "number", "3")
    'Roll a die. Write just {number}.'
    """
    if not clause:
        return f"{question} {form_sentence(wrap, noun, answer)}"
    named = answer or noun
    facts = {
        "noun": named,
        "a_noun": with_article(named),
        "shown": wrap.replace("%s", noun),
        "example": wrap.replace("%s", example),
    }
    before, after = clause.split("{question}")
    ended = question if not after.startswith(" ") or _ENDS.search(question) else f"{question}."
    return f"{filled(before, facts)}{ended}{filled(after, facts)}"
