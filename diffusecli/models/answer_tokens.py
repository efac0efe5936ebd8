"""Answers in tokens: what follows the prompt in whole conversations, cut out and compared with what it spells.

Very many answers are rendered by their shape and tokenised behind the last part of the prompt, where that gives the same tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from diffusecli.files.text import canonical, holds_half_characters
from diffusecli.models.frame import Frame
from diffusecli.models.tokens import (
    ANCHORS,
    decode,
    decode_answer,
    decode_answers,
    excerpt,
    last_tokens,
    tokenise,
    tokenise_all,
)


@dataclass(frozen=True)
class Row:
    """An answer, as it is trained, and its tokens with the terminator."""

    answer: str
    trained: str
    path: tuple[int, ...]


_MANY = 20_000
"""Answers beyond which not every single one is rendered."""
_COMPARED = 100
"""Of these: the tokens of so many behind all of the prompt are compared with those behind its last part."""
_RUN_OF_WORDS = re.compile(r"\w+")


def rows_of(frame: Frame, answers: Sequence[str], render: Callable[[str], str]) -> list[Row]:
    """Answers by the conversation that `render` writes around each; raises `InputError` for one that its tokens do not spell."""
    ended = [frame.before + text + (frame.stop_text or frame.ending) for text in _all_shown(frame, answers, render)]
    paths = [_path(frame, tail) for tail in _following(frame, ended)]
    spelled = decode_answers(frame.tokenizer, [path[:-1] if frame.by_token else path for path in paths])
    return [_row(frame, *row) for row in zip(answers, paths, spelled, strict=True)]


def _all_shown(frame: Frame, answers: Sequence[str], render: Callable[[str], str]) -> Iterable[str]:
    """The answers as the template writes them.

    Of very many, one of each shape is rendered (what is left of it once letters and digits are all the same). Where the template
    changes one of these, all are.
    """
    if len(answers) > _MANY:
        shapes = {_RUN_OF_WORDS.sub("a", answer): answer for answer in reversed(answers)}
        if len(shapes) <= _MANY and all(_shown(frame, answer, render(answer)) == answer for answer in shapes.values()):
            return (_written(frame, answer, answer) for answer in answers)
    return (_written(frame, _shown(frame, answer, render(answer)), answer) for answer in answers)


def _shown(frame: Frame, answer: str, rendered: str) -> str:
    """The answer as the template writes it: white space at its ends may be lost, nothing else."""
    shown = rendered.removeprefix(frame.opening + frame.before).removesuffix(frame.ending)
    if rendered != f"{frame.opening}{frame.before}{shown}{frame.ending}":
        raise frame.error(
            f"the chat template puts something else around the target {answer!r} than around other answers; write it otherwise or set "
            "another chat_template"
        )
    if canonical(shown) != canonical(answer):
        raise frame.error(f"the chat template changes the target {answer!r} (to {excerpt(shown)!r}), write it so that it survives")
    return shown


def _written(frame: Frame, shown: str, answer: str) -> str:
    """An answer as the template writes it, which tokens can spell and which does not end before its end."""
    if holds_half_characters(shown):
        raise frame.error(f"the target {answer!r} holds half a sign (a surrogate), which no tokenizer takes; write it without")
    if frame.stop_text and (shown + frame.stop_text).find(frame.stop_text) < len(shown):
        raise frame.error(
            f"the target {answer!r} holds, or begins, {frame.stop_text!r}, which ends an answer in this chat template; write it without"
        )
    return shown


def _path(frame: Frame, tail: tuple[int, ...]) -> tuple[int, ...]:
    """What follows the prompt up to the first token that ends it, or all where a text does that."""
    if not frame.by_token:
        return tail
    return tail[: next((i for i, token in enumerate(tail) if token in frame.endings), len(tail) - 1) + 1]


def _row(frame: Frame, answer: str, path: tuple[int, ...], spelled: str) -> Row:
    trained = spelled.removeprefix(frame.before).removesuffix(frame.stop_text or frame.after)
    if canonical(trained) != canonical(answer):
        raise frame.error(f"the target {answer!r} comes back from the tokenizer as {trained!r}, write it so that it survives")
    return Row(answer, trained, path)


def unended(frame: Frame, row: Row) -> tuple[int, ...]:
    """The tokens of an answer that may go on: those of its path that spell no more than it."""
    text = frame.before + row.trained
    for length in range(len(row.path) - frame.by_token, 0, -1):
        spelled = decode_answer(frame.tokenizer, row.path[:length])
        if spelled == text:
            return row.path[:length]
        if not spelled.startswith(text):
            break
    return _following(frame, [text])[0]


def _following(frame: Frame, texts: Sequence[str]) -> list[tuple[int, ...]]:
    """The tokens of texts where they follow the prompt: those that the whole has more, else those of the text by itself.

    The latter where the whole has a token that is of both. Proved by decoding; raises `InputError` when nothing decodes to the whole.
    """
    whole, part = (frame.opening, frame.prompt_ids), frame.last_part
    if len(texts) > _MANY and part is not None:
        some = texts[:: -(-len(texts) // _COMPARED)]
        if None not in (quick := _behind(frame, part, some, in_backend=True)) and quick == _behind(frame, whole, some):
            return [
                ids or _alone(frame, text) for ids, text in zip(_behind(frame, part, texts, in_backend=True), texts, strict=True)
            ]
    return [ids or _alone(frame, text) for ids, text in zip(_behind(frame, whole, texts), texts, strict=True)]


def _behind(
    frame: Frame, opening: tuple[str, tuple[int, ...]], texts: Sequence[str], *, in_backend: bool = False
) -> list[tuple[int, ...] | None]:
    """The tokens that texts add behind an opening; None where one of them is of both."""
    before, asked = opening
    found = tokenise_all(frame.tokenizer, [before + text for text in texts], in_backend=in_backend)
    return [tuple(ids[len(asked) :]) if tuple(ids[: len(asked)]) == asked else None for ids in found]


def _alone(frame: Frame, text: str) -> tuple[int, ...]:
    """Tokens of a text by itself, as it is or after a sign that is cut off again, that continue the prompt's text.

    Best exactly; where none do, the text itself is what its tokens do not spell, and whoever decodes them finds out how.
    """
    tokenizer = frame.tokenizer
    asked = decode(tokenizer, frame.prompt_ids, special=True)
    close: list[tuple[int, ...]] = []
    for sign in ("", *ANCHORS):
        first, whole = tokenise(tokenizer, sign), tokenise(tokenizer, sign + text)
        ids = tuple(whole[len(first) :])
        spelled = decode(tokenizer, [*frame.prompt_ids, *ids], special=True)
        if whole[: len(first)] == first and spelled == asked + text:
            return ids
        if whole[: len(first)] == first and spelled.startswith(asked):
            close.append(ids)
    if close:
        return close[-1]  # behind a sign no space is put before the text
    raise frame.error(
        f"prompt and answer cannot be told apart in tokens: the prompt ends in {last_tokens(tokenizer, frame.opening)}, with the answer "
        f"{excerpt(text)!r} it goes on as {last_tokens(tokenizer, frame.opening + text)}; set another chat_template"
    )


def changes(frame: Frame, rows: Sequence[Row]) -> list[str]:
    """A sentence when answers are trained otherwise than they are written."""
    changed = [row for row in rows if row.trained != row.answer]
    if not changed:
        return []
    first, more = changed[0], f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
    who = (
        "the chat template trims white space" if first.trained.strip() == first.answer.strip() else "the tokenizer normalises text"
    )
    return [f"{frame.prompt.alias}: {who}: {first.answer!r} is trained as {first.trained!r}{more}"]
