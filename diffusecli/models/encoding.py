"""The tokenizer boundary: a `Prompt` becomes prompt ids and a `TokenTrie`.

The sole owner of terminators and stop tokens. Knows nothing of weights or tensors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from diffusecli.files.text import canonical, holds_half_characters
from diffusecli.models.chat import Chat
from diffusecli.models.frame import Frame
from diffusecli.models.sequence_encoding import encode_sequences
from diffusecli.models.sequences import Sequences
from diffusecli.models.tokens import (
    ANCHORS,
    decode,
    decode_answer,
    decode_answers,
    excerpt,
    last_tokens,
    named_token,
    tokenise,
    tokenise_all,
)
from diffusecli.models.trie import TokenTrie
from diffusecli.prompts.answer_texts import answer_texts
from diffusecli.prompts.prompt import Prompt
from diffusecli.system.errors import InputError, Problem


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt in the model's tokens. P prompt tokens, K targets, J paths (a target has one per response variant and spelling)."""

    prompt: Prompt
    prompt_ids: tuple[int, ...]  # P: the conversation up to where the answer begins
    trie: TokenTrie  # J paths; empty when the prompt has no targets
    owners: tuple[int, ...]  # J: the target each path spells
    stop_ids: frozenset[int]  # any of these ends an answer
    stop_text: str = ""  # so does this text, where the template ends turns by no token of its own
    around: tuple[str, str] = ("", "")  # what the template puts before and after an answer; no part of it
    remarks: tuple[str, ...] = ()  # what the template or tokenizer changed, for the user
    choices: tuple[int, ...] = ()  # J: paths of the same number are spellings of each other; () where each has its own
    sequences: Sequences | None = None  # of several draws in one answer; `trie` is then the part that a few of them visit

    @property
    def alias(self) -> str:
        """The prompt's path, its name in every output."""
        return self.prompt.alias

    @property
    def longest(self) -> int:
        """The tokens of the longest target with a response variant before it, its end included; 0 without targets."""
        if self.sequences is not None:
            return self.sequences.longest
        return int(self.trie.depths.max(initial=0))

    def longer_than(self, tokens: int) -> int:
        """How many targets take more than so many tokens, in at least one of their variants; of several draws all or none."""
        if self.sequences is not None:
            return len(self.prompt.targets) if self.longest > tokens else 0
        return len({self.owners[path] for path in np.flatnonzero(self.trie.depths[self.trie.leaves] > tokens).tolist()})

    def text(self, tokenizer: Any, ids: Sequence[int]) -> str:
        """The answer that generated ids spell, without what the template puts around it."""
        (before, after), spelled = self.around, decode_answer(tokenizer, ids)
        if before.startswith(spelled):
            return ""  # it has not begun: a stop text may stand in what comes before it
        return spelled.removeprefix(before).removesuffix(after)


_NO_TREE = TokenTrie.build([], [])
_SHOWN_SEQUENCES = 16
"""Of several draws in an answer: sequences whose tree stands for all of them."""


def encode_prompt(prompt: Prompt, chat: Chat) -> EncodedPrompt:
    """Tokenise whole conversations, one per target, response variant and spelling, and merge them into a trie.

    The prompt is the exact common token prefix (the template's generation prompt, and what it puts before every answer, such as an
    empty block of thoughts); what follows the first end-of-turn token is dropped, since a model never generates it. Where prompt and
    answer share a token, the answer is tokenised by itself. Every path is decoded and compared with its answer.
    Raises `InputError` when that fails, when the template ends no turn, when two targets cannot be told apart in tokens, or when the
    model does not know a token.
    """
    messages, folded = chat.messages(prompt)
    frame = Frame.of(prompt, chat, messages)
    remarks = ["the chat template has no place for a system text: it goes before the request"] if folded else []
    if chat.unused:
        remarks.append(f"the chat template knows no variable '{chat.unused[0]}', so chat_template_kwargs sets it in vain")
    if chat.dated(messages):
        remarks.append("the chat template writes today's date into the prompt, so tomorrow's is another one: "
                       "pin it in chat_template_kwargs (mostly as date_string)")  # fmt: skip
    if frame.thoughts:
        remarks.append(f"the chat template puts {frame.thoughts!r} before every answer: it is part of the prompt here, elsewhere render the "
                       "prompt with it too (chat_template_kwargs, such as enable_thinking: false, does it in the template)")  # fmt: skip
    if frame.after:
        remarks.append(f"the chat template puts {frame.after!r} between an answer and its end: exact figures are those of answers with it, "
                       "samples count with and without it")  # fmt: skip
    stop_ids = frozenset(token for token in frame.stop_ids if chat.rows is None or token < chat.rows)
    unsaid = [f"{named_token(frame.tokenizer, token)} would end an answer, but the model's embedding has {chat.rows} rows: it is never said"
              for token in sorted(frame.stop_ids - stop_ids)]  # fmt: skip
    framed = EncodedPrompt(prompt, frame.prompt_ids, _NO_TREE, (), stop_ids, frame.stop_text, (frame.before, frame.after))
    if prompt.draws is not None:
        sequences = encode_sequences(frame, prompt, prompt.draws)
        paths = [trie.path(place) for trie in sequences.places for place in range(len(trie.leaves))]
        _require_known(frame, chat.rows, [prompt.alias] * len(paths), paths)
        shown = sequences.sample(_SHOWN_SEQUENCES, 0)
        return replace(framed, trie=shown, remarks=tuple(remarks + unsaid), sequences=sequences)
    texts = list(answer_texts(prompt))
    answers = [answer.text for answer in texts]
    rows = _rows(frame, answers, _all_shown(frame, answers, lambda answer: chat.render(messages, prompt.alias, answer)))
    remarks += _changes(frame, rows) + unsaid
    paths = [row.path for row in rows] if prompt.eos else [_unended(frame, row) for row in rows]
    _require_known(frame, chat.rows, answers, paths)
    trie = _merged(prompt, paths, answers, [answer.weight for answer in texts])
    spelled = len(prompt.every_spelling) > len(prompt.targets)
    return replace(
        framed, trie=trie, owners=tuple(answer.target for answer in texts), remarks=tuple(remarks),
        choices=tuple(answer.choice for answer in texts) if spelled else (),
    )  # fmt: skip


def encode_like(prompt: Prompt, chat: Chat, like: EncodedPrompt) -> EncodedPrompt:
    """A prompt that differs from `like` in what is asked only, in tokens: it shares the trie where that is sure to be the same.

    It is where a special token of the template stands between request and answer, and the same text follows it: no token spans it.
    """
    last = max((place for place, token in enumerate(like.prompt_ids) if token in chat.special_ids), default=None)
    tail = () if last is None else like.prompt_ids[last:]
    if tail:
        ids = tuple(tokenise(chat.tokenizer, chat.render(chat.messages(prompt)[0], prompt.alias)))
        if ids[-len(tail) :] == tail and (chat.rows is None or max(ids) < chat.rows):
            return replace(like, prompt=prompt, prompt_ids=ids)
    return encode_prompt(prompt, chat)


def encode_wordings(prompts: Sequence[Prompt], chat: Chat) -> tuple[EncodedPrompt, ...]:
    """Prompts that differ in what is asked only, in tokens."""
    found: list[EncodedPrompt] = []
    for prompt in prompts:
        found.append(encode_like(prompt, chat, found[0]) if found else encode_prompt(prompt, chat))
    return tuple(found)


@dataclass(frozen=True)
class _Row:
    """An answer, as it is trained, and its tokens with the terminator."""

    answer: str
    trained: str
    path: tuple[int, ...]


_MANY = 20_000
"""Answers beyond which not every single one is rendered."""
_COMPARED = 100
"""Of these: the tokens of so many behind all of the prompt are compared with those behind its last part."""
_RUN_OF_WORDS = re.compile(r"\w+")


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


def _rows(frame: Frame, answers: Sequence[str], shown: Iterable[str]) -> list[_Row]:
    """Cut out of whole conversations; raises `InputError` for an answer that its tokens do not spell."""
    ended = [frame.before + text + (frame.stop_text or frame.ending) for text in shown]
    paths = [_path(frame, tail) for tail in _following(frame, ended)]
    spelled = decode_answers(frame.tokenizer, [path[:-1] if frame.by_token else path for path in paths])
    return [_row(frame, *row) for row in zip(answers, paths, spelled, strict=True)]


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


def _row(frame: Frame, answer: str, path: tuple[int, ...], spelled: str) -> _Row:
    trained = spelled.removeprefix(frame.before).removesuffix(frame.stop_text or frame.after)
    if canonical(trained) != canonical(answer):
        raise frame.error(f"the target {answer!r} comes back from the tokenizer as {trained!r}, write it so that it survives")
    return _Row(answer, trained, path)


def _unended(frame: Frame, row: _Row) -> tuple[int, ...]:
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


def _changes(frame: Frame, rows: Sequence[_Row]) -> list[str]:
    """A sentence when answers are trained otherwise than they are written."""
    changed = [row for row in rows if row.trained != row.answer]
    if not changed:
        return []
    first, more = changed[0], f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
    who = (
        "the chat template trims white space" if first.trained.strip() == first.answer.strip() else "the tokenizer normalises text"
    )
    return [f"{frame.prompt.alias}: {who}: {first.answer!r} is trained as {first.trained!r}{more}"]


def _require_known(frame: Frame, rows: int | None, answers: Sequence[str], paths: Sequence[tuple[int, ...]]) -> None:
    """Report the first token that the model's embedding has no row for, where it is used and what to do."""
    if rows is None:
        return
    if max((token for path in paths for token in path), default=0) < rows and max(frame.prompt_ids) < rows:
        return
    used = [("the request or its chat template", frame.prompt_ids)]
    used += [("the end of every answer", () if frame.terminator is None else (frame.terminator,))]
    used += [(f"the target {answer!r}", path) for answer, path in zip(answers, paths, strict=True)]
    for place, ids in used:
        if unknown := next((token for token in ids if token >= rows), None):
            raise frame.error(
                f"{place} holds {named_token(frame.tokenizer, unknown)}, but the model's embedding has {rows} rows (ids 0 to {rows - 1}). "
                "Use the tokenizer that belongs to the model, or add rows to the model (`resize_token_embeddings`) and train them"
            )


def _merged(prompt: Prompt, paths: Sequence[tuple[int, ...]], answers: Sequence[str], weights: Sequence[float]) -> TokenTrie:
    """The tree of all paths; raises `InputError` for answers of which one's tokens begin (or equal) the other's."""
    try:
        return TokenTrie.build(paths, weights)
    except ValueError:
        _require_distinct(prompt, paths, answers)
        raise


def _require_distinct(prompt: Prompt, paths: Sequence[tuple[int, ...]], answers: Sequence[str]) -> None:
    """Report the first two answers of which one's tokens begin (or equal) the other's."""
    ordered = sorted(range(len(paths)), key=lambda index: paths[index])
    for first, second in pairwise(ordered):
        if paths[second][: len(paths[first])] == paths[first]:
            how = "are the same" if paths[first] == paths[second] else "the first begins the second"
            raise InputError.of([Problem(
                prompt.alias, f"the answers {answers[first]!r} and {answers[second]!r} cannot be told apart in tokens ({how})",
                "remove one or let the target end the answer (eos: true)",
            )])  # fmt: skip
