"""Encode a `Prompt`: prompt ids and a `TokenTrie`.

Terminators and stop tokens are decided only here. It uses no weights and no tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from diffusecli.models.answer_tokens import changes, rows_of, unended
from diffusecli.models.chat import Chat
from diffusecli.models.frame import Frame
from diffusecli.models.sequence_encoding import encode_sequences
from diffusecli.models.sequences import Sequences
from diffusecli.models.tokens import (
    decode_answer,
    named_token,
    tokenise,
)
from diffusecli.models.trie import TokenTrie
from diffusecli.prompts.answer_texts import answer_texts
from diffusecli.prompts.parts import parts_of
from diffusecli.prompts.prompt import Prompt
from diffusecli.system.errors import InputError, Problem


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt in the model's tokens. P prompt tokens, K targets, J paths (a target has one per response variant and spelling)."""

    prompt: Prompt
    prompt_ids: tuple[int, ...]  # P: the conversation before the answer
    trie: TokenTrie  # J paths; empty when the prompt has no targets
    owners: tuple[int, ...]  # J: the target each path spells
    stop_ids: frozenset[int]  # tokens that end an answer
    stop_text: str = ""  # text that ends an answer, if the template has no end-of-turn token
    around: tuple[str, str] = ("", "")  # text that the template puts before and after an answer, not part of it
    remarks: tuple[str, ...] = ()  # changes by the template or tokenizer, for the user
    choices: tuple[int, ...] = ()  # J: paths with the same number are spellings of the same answer; () if there are none
    sequences: Sequences | None = None  # for answers in parts; `trie` is then what a few sequences visit

    @property
    def alias(self) -> str:
        """The prompt's path, used as its name in all output."""
        return self.prompt.alias

    @property
    def longest(self) -> int:
        """The number of tokens of the longest target, including response variant and terminator; 0 without targets."""
        if self.sequences is not None:
            return self.sequences.longest
        return int(self.trie.depths.max(initial=0))

    def longer_than(self, tokens: int) -> int:
        """The number of targets with more than `tokens` tokens in at least one variant; for answers in parts all or none."""
        if self.sequences is not None:
            return len(self.prompt.targets) if self.longest > tokens else 0
        return len({self.owners[path] for path in np.flatnonzero(self.trie.depths[self.trie.leaves] > tokens).tolist()})

    def text(self, tokenizer: Any, ids: Sequence[int]) -> str:
        """The answer as text from generated ids, without the template's text around it."""
        (before, after), spelled = self.around, decode_answer(tokenizer, ids)
        if before.startswith(spelled):
            return ""  # no answer yet: the text before it may contain the stop text
        return spelled.removeprefix(before).removesuffix(after)


_NO_TREE = TokenTrie.build([], [])
_SHOWN_SEQUENCES = 16
"""For answers in parts: the number of sequences in the tree that represents them."""


def encode_prompt(prompt: Prompt, chat: Chat) -> EncodedPrompt:
    """Tokenise whole conversations, one per target, response variant and spelling, and merge them into a trie.

    The prompt is the exact common token prefix (the template's generation prompt, and what it puts before every answer, such as an
    empty block of thoughts). Tokens after the first end-of-turn token are dropped, because a model never generates them. If prompt and
    answer share a token, the answer is tokenised alone. Every path is decoded and compared with its answer.
    Raises `InputError` when that fails, when the template does not end turns, when two targets cannot be distinguished by tokens, or when the
    model does not know a token.
    """
    messages, folded = chat.messages(prompt)
    frame = Frame.of(prompt, chat, messages)
    remarks = ["the chat template does not support a system prompt. It is put before the request"] if folded else []
    if chat.unused:
        remarks.append(f"the chat template does not use the variable '{chat.unused[0]}' of chat_template_kwargs")
    if chat.dated(messages):
        remarks.append("the chat template writes today's date into the prompt, so the prompt changes every day. "
                       "Set a fixed date in chat_template_kwargs (usually date_string)")  # fmt: skip
    if frame.thoughts:
        remarks.append(f"the chat template puts {frame.thoughts!r} before every answer. It is part of the prompt here. Outside diffuse, render the "
                       "prompt with it too (or set chat_template_kwargs, such as enable_thinking: false)")  # fmt: skip
    if frame.after:
        remarks.append(f"the chat template puts {frame.after!r} between an answer and its end. Exact figures are for answers with it; "
                       "samples count with and without it")  # fmt: skip
    stop_ids = frozenset(token for token in frame.stop_ids if chat.rows is None or token < chat.rows)
    unsaid = [f"{named_token(frame.tokenizer, token)} should end an answer, but the model's embedding has only {chat.rows} rows, so the model never generates it"
              for token in sorted(frame.stop_ids - stop_ids)]  # fmt: skip
    framed = EncodedPrompt(prompt, frame.prompt_ids, _NO_TREE, (), stop_ids, frame.stop_text, (frame.before, frame.after))
    if (parts := parts_of(prompt)) is not None:
        sequences = encode_sequences(frame, prompt, parts)
        paths = [trie.path(place) for trie in sequences.places for place in range(len(trie.leaves))]
        _require_known(frame, chat.rows, [prompt.alias] * len(paths), paths)
        shown = sequences.sample(_SHOWN_SEQUENCES, 0)
        return replace(framed, trie=shown, remarks=tuple(remarks + unsaid), sequences=sequences)
    texts = list(answer_texts(prompt))
    answers = [answer.text for answer in texts]
    rows = rows_of(frame, answers, lambda answer: chat.render(messages, prompt.alias, answer))
    remarks += changes(frame, rows) + unsaid
    paths = [row.path for row in rows] if prompt.eos else [unended(frame, row) for row in rows]
    _require_known(frame, chat.rows, answers, paths)
    trie = _merged(prompt, paths, answers, [answer.weight for answer in texts])
    spelled = len(prompt.every_spelling) > len(prompt.targets)
    return replace(
        framed, trie=trie, owners=tuple(answer.target for answer in texts), remarks=tuple(remarks),
        choices=tuple(answer.choice for answer in texts) if spelled else (),
    )  # fmt: skip


def encode_like(prompt: Prompt, chat: Chat, like: EncodedPrompt) -> EncodedPrompt:
    """Encode a prompt that differs from `like` only in the request. It shares the trie if that is certainly the same.

    It is the same if a special token of the template separates request and answer, and the same text follows it: no token spans it.
    """
    last = max((place for place, token in enumerate(like.prompt_ids) if token in chat.special_ids), default=None)
    tail = () if last is None else like.prompt_ids[last:]
    if tail:
        ids = tuple(tokenise(chat.tokenizer, chat.render(chat.messages(prompt)[0], prompt.alias)))
        if ids[-len(tail) :] == tail and (chat.rows is None or max(ids) < chat.rows):
            return replace(like, prompt=prompt, prompt_ids=ids)
    return encode_prompt(prompt, chat)


def encode_wordings(prompts: Sequence[Prompt], chat: Chat) -> tuple[EncodedPrompt, ...]:
    """Encode prompts that differ only in the request."""
    found: list[EncodedPrompt] = []
    for prompt in prompts:
        found.append(encode_like(prompt, chat, found[0]) if found else encode_prompt(prompt, chat))
    return tuple(found)


def _require_known(frame: Frame, rows: int | None, answers: Sequence[str], paths: Sequence[tuple[int, ...]]) -> None:
    """Raises `InputError` for a token without a row in the model's embedding."""
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
                f"{place} contains {named_token(frame.tokenizer, unknown)}, but the model's embedding has {rows} rows (ids 0 to {rows - 1}). "
                "Use the tokenizer that belongs to the model, or add rows to the model (`resize_token_embeddings`) and train them"
            )


def _merged(prompt: Prompt, paths: Sequence[tuple[int, ...]], answers: Sequence[str], weights: Sequence[float]) -> TokenTrie:
    """The tree of all paths. Raises `InputError` if the tokens of one answer are equal to, or a prefix of, another's."""
    try:
        return TokenTrie.build(paths, weights)
    except ValueError:
        _require_distinct(prompt, paths, answers)
        raise


def _require_distinct(prompt: Prompt, paths: Sequence[tuple[int, ...]], answers: Sequence[str]) -> None:
    """Raises `InputError` for the first two answers with equal tokens, or with one's tokens a prefix of the other's."""
    ordered = sorted(range(len(paths)), key=lambda index: paths[index])
    for first, second in pairwise(ordered):
        if paths[second][: len(paths[first])] == paths[first]:
            how = "they are equal" if paths[first] == paths[second] else "the first is a prefix of the second"
            raise InputError.of([Problem(
                prompt.alias, f"the answers {answers[first]!r} and {answers[second]!r} cannot be distinguished by their tokens ({how})",
                "remove one or let the target end the answer (eos: true)",
            )])  # fmt: skip
