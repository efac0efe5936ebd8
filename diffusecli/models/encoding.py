"""The tokenizer boundary: a `Prompt` becomes prompt ids and a `TokenTrie`.

The sole owner of terminators and stop tokens. Knows nothing of weights or tensors.
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
