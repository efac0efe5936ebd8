"""Several draws in one answer, in tokens: the tokens of each target at each position of the sequence.

Targets are placed between texts of the prompt (`Draws`): `{3, 7, 1}`. A token may span the end of one and the beginning of the next. So whole
answers that differ at one position only are tokenised, and the common tokens before and after are removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from diffusecli.files.text import canonical
from diffusecli.models.frame import Frame
from diffusecli.models.sequences import Sequences
from diffusecli.models.tokens import decode_answers, tokenise_all
from diffusecli.models.trie import TokenTrie
from diffusecli.prompts.prompt import Draws, Prompt
from diffusecli.prompts.templates import Template
from diffusecli.system.errors import InputError

_COMPARED = 32  # sequences whose tokens are compared with those of their parts


def encode_sequences(frame: Frame, prompt: Prompt, draws: Draws) -> Sequences:
    """A tree for each position. Raises `InputError` if the tokens of a draw depend on other draws."""
    targets, template, rng = prompt.targets, draws.template, np.random.default_rng(0)
    base = [targets[place % len(targets)] for place in range(draws.n)]

    opening, ending = frame.opening + frame.before, frame.stop_text or frame.ending

    def tokens(texts: Iterable[str]) -> list[list[int]]:
        return [_ended(frame, ids) for ids in tokenise_all(frame.tokenizer, [opening + text for text in texts])]

    (whole,) = tokens([template.fill(base) + ending])
    if tuple(whole[: len(frame.prompt_ids)]) != frame.prompt_ids:
        raise frame.error("prompt and answer share a token, which is not supported with draws. Set another chat_template")
    paths: list[list[tuple[int, ...]]] = []
    start = len(frame.prompt_ids)
    for place in range(draws.n):
        rows = [[*base[:place], target, *base[place + 1 :]] for target in targets]
        found = tokens(template.fill(row) + ending for row in rows)
        after = draws.separator.rstrip() or draws.separator  # a space before a draw belongs to that draw's tokens
        ends = (
            [len(ids) for ids in tokens(_up_to(template, row, place) + after for row in rows)]
            if place < draws.n - 1
            else list(map(len, found))
        )
        own = ends[targets.index(base[place])]
        paths.append([tuple(ids[start:end]) for ids, end in zip(found, ends, strict=True)])
        if any(ids[:start] != whole[:start] or ids[end:] != whole[own:] for ids, end in zip(found, ends, strict=True)):
            raise _entangled(frame, draws)
        start = own
    for place in range(draws.n):  # every target decodes correctly at every position
        spelled = decode_answers(
            frame.tokenizer, [path[:-1] if place == draws.n - 1 and frame.by_token else path for path in paths[place]]
        )
        for target, text in zip(targets, spelled, strict=True):
            if canonical(target) not in canonical(text):
                raise frame.error(
                    f"the target {target!r} is changed by the tokenizer to {text!r}. Write the target so that it is not changed"
                )
    for row in rng.integers(len(targets), size=(_COMPARED, draws.n)).tolist():
        (ids,) = tokens([template.fill([targets[index] for index in row]) + ending])
        joined = [*frame.prompt_ids, *(token for place, index in enumerate(row) for token in paths[place][index])]
        if ids != joined:
            raise _entangled(frame, draws)
    try:
        return Sequences(tuple(TokenTrie.build(some, prompt.probabilities) for some in paths), draws.replace)
    except ValueError as error:  # the tokens of one target are a prefix of another's
        raise _entangled(frame, draws) from error


def _ended(frame: Frame, ids: list[int]) -> list[int]:
    """The tokens up to the first terminator."""
    if not frame.by_token:
        return ids
    begun = len(frame.prompt_ids)
    return ids[: next((place for place in range(begun, len(ids)) if ids[place] in frame.endings), len(ids) - 1) + 1]


def _up_to(template: Template, row: Sequence[str], place: int) -> str:
    """The answer up to the end of a draw."""
    return (
        template.texts[0] + "".join(value + text for value, text in zip(row[:place], template.texts[1:], strict=False)) + row[place]
    )


def _entangled(frame: Frame, draws: Draws) -> InputError:
    return frame.error(
        f"with the separator {draws.separator!r}, the tokens of a draw depend on neighbouring draws in this tokenizer. Use another separator, such as ', ' or ' | '"
    )
