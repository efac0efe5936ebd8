"""Answers in tokens: the tokens after the prompt in whole conversations, verified by decoding.

If there are very many answers, only one of each shape is rendered, and they are tokenised after the last part of the prompt if that gives the
same tokens.
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
    """An answer, its trained text, and its tokens with the terminator."""

    answer: str
    trained: str
    path: tuple[int, ...]


_MANY = 20_000
"""With more answers than this, not every answer is rendered."""
_COMPARED = 100
"""Number of answers to compare: tokens after the whole prompt with tokens after its last part."""
_RUN_OF_WORDS = re.compile(r"\w+")


def rows_of(frame: Frame, answers: Sequence[str], render: Callable[[str], str]) -> list[Row]:
    """Tokenise answers in the conversation that `render` writes. Raises `InputError` if the tokens of an answer do not decode to it."""
    ended = [frame.before + text + (frame.stop_text or frame.ending) for text in _all_shown(frame, answers, render)]
    paths = [_path(frame, tail) for tail in _following(frame, ended)]
    spelled = decode_answers(frame.tokenizer, [path[:-1] if frame.by_token else path for path in paths])
    return [_row(frame, *row) for row in zip(answers, paths, spelled, strict=True)]


def _all_shown(frame: Frame, answers: Sequence[str], render: Callable[[str], str]) -> Iterable[str]:
    """The answers as the template writes them.

    If there are very many, one of each shape is rendered (the shape ignores which letters and digits occur). If the template changes
    one of these, all answers are rendered.
    """
    if len(answers) > _MANY:
        shapes = {_RUN_OF_WORDS.sub("a", answer): answer for answer in reversed(answers)}
        if len(shapes) <= _MANY and all(_shown(frame, answer, render(answer)) == answer for answer in shapes.values()):
            return (_written(frame, answer, answer) for answer in answers)
    return (_written(frame, _shown(frame, answer, render(answer)), answer) for answer in answers)


def _shown(frame: Frame, answer: str, rendered: str) -> str:
    """The answer as the template writes it. Only white space at its ends may change."""
    shown = rendered.removeprefix(frame.opening + frame.before).removesuffix(frame.ending)
    if rendered != f"{frame.opening}{frame.before}{shown}{frame.ending}":
        raise frame.error(
            f"the chat template puts different text around the target {answer!r} than around other answers. Change the target or set "
            "another chat_template"
        )
    if canonical(shown) != canonical(answer):
        raise frame.error(
            f"the chat template changes the target {answer!r} (to {excerpt(shown)!r}). Write the target so that it is not changed"
        )
    return shown


def _written(frame: Frame, shown: str, answer: str) -> str:
    """An answer as the template writes it. Raises `InputError` if no tokenizer can encode it, or if it contains the stop text."""
    if holds_half_characters(shown):
        raise frame.error(
            f"the target {answer!r} contains half of a character (a lone surrogate), which no tokenizer accepts. Remove it"
        )
    if frame.stop_text and (shown + frame.stop_text).find(frame.stop_text) < len(shown):
        raise frame.error(
            f"the target {answer!r} contains {frame.stop_text!r} or ends with its beginning. That text ends an answer in this chat template. Remove it"
        )
    return shown


def _path(frame: Frame, tail: tuple[int, ...]) -> tuple[int, ...]:
    """The tokens up to the first terminator; all if a text ends answers."""
    if not frame.by_token:
        return tail
    return tail[: next((i for i, token in enumerate(tail) if token in frame.endings), len(tail) - 1) + 1]


def _row(frame: Frame, answer: str, path: tuple[int, ...], spelled: str) -> Row:
    trained = spelled.removeprefix(frame.before).removesuffix(frame.stop_text or frame.after)
    if canonical(trained) != canonical(answer):
        raise frame.error(
            f"the target {answer!r} is changed by the tokenizer to {trained!r}. Write the target so that it is not changed"
        )
    return Row(answer, trained, path)


def unended(frame: Frame, row: Row) -> tuple[int, ...]:
    """The tokens of an answer without a terminator: the part of its path that decodes to exactly the answer."""
    text = frame.before + row.trained
    for length in range(len(row.path) - frame.by_token, 0, -1):
        spelled = decode_answer(frame.tokenizer, row.path[:length])
        if spelled == text:
            return row.path[:length]
        if not spelled.startswith(text):
            break
    return _following(frame, [text])[0]


def _following(frame: Frame, texts: Sequence[str]) -> list[tuple[int, ...]]:
    """The tokens of texts after the prompt: the additional tokens of prompt and text, otherwise the tokens of the text alone.

    The latter if a token spans prompt and text. Verified by decoding. Raises `InputError` if nothing decodes to the whole.
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
    """The tokens that texts add after an opening; None if a token spans both."""
    before, asked = opening
    found = tokenise_all(frame.tokenizer, [before + text for text in texts], in_backend=in_backend)
    return [tuple(ids[len(asked) :]) if tuple(ids[: len(asked)]) == asked else None for ids in found]


def _alone(frame: Frame, text: str) -> tuple[int, ...]:
    """Tokens of a text alone, or after an anchor character that is removed again, that continue the prompt's text.

    Exactly if possible. Otherwise the tokens decode to a different text, and the caller reports that.
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
        return close[-1]  # after an anchor the tokenizer adds no space before the text
    raise frame.error(
        f"prompt and answer share a token: the prompt ends with {last_tokens(tokenizer, frame.opening)}, and with the answer "
        f"{excerpt(text)!r} it ends with {last_tokens(tokenizer, frame.opening + text)}. Set another chat_template"
    )


def changes(frame: Frame, rows: Sequence[Row]) -> list[str]:
    """A remark if answers are trained in a changed form."""
    changed = [row for row in rows if row.trained != row.answer]
    if not changed:
        return []
    first, more = changed[0], f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
    who = (
        "the chat template trims white space" if first.trained.strip() == first.answer.strip() else "the tokenizer normalises text"
    )
    return [f"{frame.prompt.alias}: {who}: {first.answer!r} is trained as {first.trained!r}{more}"]
