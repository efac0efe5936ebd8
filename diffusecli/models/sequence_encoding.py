"""Answers in parts, in tokens: the tokens of each value of each part.

Values are placed between texts of the prompt: `{3, 7, 1}`. A token may span the end of one and the beginning of the next. So whole
answers that differ in one part only are tokenised, and the common tokens before and after are removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from diffusecli.files.text import canonical
from diffusecli.models.frame import Frame
from diffusecli.models.sequences import Sequences
from diffusecli.models.tokens import decode_answers, tokenise_all
from diffusecli.models.trie import TokenTrie
from diffusecli.prompts.parts import Parts
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.templates import Template
from diffusecli.system.errors import InputError

_COMPARED = 32  # answers whose tokens are compared with those of their parts


def encode_sequences(frame: Frame, prompt: Prompt, parts: Parts) -> Sequences:
    """A tree for each part. Raises `InputError` if the tokens of a part depend on other parts."""
    template, values, rng = parts.template, parts.values, np.random.default_rng(0)
    last = len(values) - 1
    base = [some[place % len(some)] for place, some in enumerate(values)]

    opening, ending = frame.opening + frame.before, frame.stop_text or frame.ending

    def tokens(texts: Iterable[str]) -> list[list[int]]:
        return [_ended(frame, ids) for ids in tokenise_all(frame.tokenizer, [opening + text for text in texts])]

    (whole,) = tokens([template.fill(base) + ending])
    if tuple(whole[: len(frame.prompt_ids)]) != frame.prompt_ids:
        raise frame.error(
            f"prompt and answer share a token, which is not supported with {_kind(prompt)}. Set another chat_template"
        )
    paths: list[list[tuple[int, ...]]] = []
    start = len(frame.prompt_ids)
    for place, own_values in enumerate(values):
        rows = [[*base[:place], value, *base[place + 1 :]] for value in own_values]
        found = tokens(template.fill(row) + ending for row in rows)
        between = template.texts[place + 1]
        after = between.rstrip() or between  # a space before a part belongs to that part's tokens
        ends = (
            [len(ids) for ids in tokens(_up_to(template, row, place) + after for row in rows)]
            if place < last
            else list(map(len, found))
        )
        own = ends[own_values.index(base[place])]
        paths.append([tuple(ids[start:end]) for ids, end in zip(found, ends, strict=True)])
        if any(ids[:start] != whole[:start] or ids[end:] != whole[own:] for ids, end in zip(found, ends, strict=True)):
            raise _entangled(frame, prompt)
        start = own
    for place, own_values in enumerate(values):  # every value decodes correctly
        spelled = decode_answers(
            frame.tokenizer, [path[:-1] if place == last and frame.by_token else path for path in paths[place]]
        )
        for value, text in zip(own_values, spelled, strict=True):
            if canonical(value) not in canonical(text):
                raise frame.error(
                    f"the target {value!r} is changed by the tokenizer to {text!r}. Write the target so that it is not changed"
                )
    for row in rng.integers([len(some) for some in values], size=(_COMPARED, len(values))).tolist():
        (ids,) = tokens([template.fill([some[index] for some, index in zip(values, row, strict=True)]) + ending])
        joined = [*frame.prompt_ids, *(token for place, index in enumerate(row) for token in paths[place][index])]
        if ids != joined:
            raise _entangled(frame, prompt)
    try:
        return Sequences(tuple(TokenTrie.build(some, [1 / len(some)] * len(some)) for some in paths), parts.weights)
    except ValueError as error:  # the tokens of one value are a prefix of another's
        raise _entangled(frame, prompt) from error


def _ended(frame: Frame, ids: list[int]) -> list[int]:
    """The tokens up to the first terminator."""
    if not frame.by_token:
        return ids
    begun = len(frame.prompt_ids)
    return ids[: next((place for place in range(begun, len(ids)) if ids[place] in frame.endings), len(ids) - 1) + 1]


def _up_to(template: Template, row: Sequence[str], place: int) -> str:
    """The answer up to the end of a part."""
    return (
        template.texts[0] + "".join(value + text for value, text in zip(row[:place], template.texts[1:], strict=False)) + row[place]
    )


def _kind(prompt: Prompt) -> str:
    return "draws" if prompt.draws is not None else "independent fields"


def _entangled(frame: Frame, prompt: Prompt) -> InputError:
    if prompt.draws is not None:
        return frame.error(
            f"with the separator {prompt.draws.separator!r}, the tokens of a draw depend on neighbouring draws in this tokenizer. Use "
            "another separator, such as ', ' or ' | '"
        )
    return frame.error(
        f"with the template {prompt.template!r}, the tokens of a field depend on neighbouring fields in this tokenizer. Put another text "
        "between the fields, such as ', ' or ' | '"
    )
