"""Tokens of prompts for `validate --model`, and problems with them.

It uses prompts and a `Chat`, and loads nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from diffusecli.models.chat import Chat
from diffusecli.models.encoding import EncodedPrompt, encode_wordings
from diffusecli.models.sampled_tree import SampledTree
from diffusecli.models.trie import TokenTrie
from diffusecli.prompts.answer_texts import answer_texts
from diffusecli.prompts.conflicts import clashes, conversation
from diffusecli.prompts.parts import parts_of
from diffusecli.prompts.prompt import Prompt
from diffusecli.system.errors import InputError, Problem


@dataclass(frozen=True)
class TokenView:
    """The tokens of a prompt."""

    encoded: EncodedPrompt
    answers: tuple[str, ...]  # J; of several draws the targets; of independent fields the values of all fields
    tokenizer: Any

    @cached_property
    def paths(self) -> list[tuple[TokenTrie, int]]:
        """The tree of each answer, and its path there."""
        sequences = self.encoded.sequences
        if sequences is None:
            return [(self.encoded.trie, path) for path in range(len(self.answers))]
        tries = sequences.places[:1] if self.encoded.prompt.draws is not None else sequences.places
        return [(trie, path) for trie in tries for path in range(len(trie.leaves))]

    def _tokens(self, place: int) -> tuple[int, ...]:
        trie, path = self.paths[place]
        return tuple(trie.path(path))

    @property
    def alias(self) -> str:
        """The prompt's alias."""
        return self.encoded.alias

    @property
    def prompt_tokens(self) -> tuple[str, ...]:
        """Tokens of the request in its chat template."""
        return tuple(self.tokenizer.convert_ids_to_tokens(list(self.encoded.prompt_ids)))

    def target_tokens(self, most: int = 0) -> list[tuple[str, tuple[str, ...]]]:
        """The first `most` answers (0: all), each with its tokens and the terminator."""
        shown = self.answers[:most] if most else self.answers
        return [(text, tuple(self.tokenizer.convert_ids_to_tokens(list(self._tokens(place))))) for place, text in enumerate(shown)]

    @property
    def fed_as_rows(self) -> int:
        """Number of tokens fed with one row per target."""
        trie = self.encoded.trie
        ends = trie.drawn if isinstance(trie, SampledTree) else trie.leaves  # for answers in parts: the sequences of a step
        return len(ends) * len(self.encoded.prompt_ids) + int(trie.depths[ends].sum())

    @property
    def fed_packed(self) -> int:
        """Number of tokens fed with the prefix tree."""
        return len(self.encoded.prompt_ids) + len(self.encoded.trie.internal)

    def as_json(self) -> dict[str, Any]:
        """As JSON: every answer with its tokens."""
        return {
            "alias": self.alias, "prompt_tokens": self.prompt_tokens, "target_tokens": self.target_tokens(),
            "fed_as_rows": self.fed_as_rows, "fed_packed": self.fed_packed,
        }  # fmt: skip


def view_tokens(
    prompts: Sequence[Prompt], together: Sequence[Sequence[Prompt]], chat: Chat
) -> tuple[list[TokenView], list[Problem]]:
    """A view of each prompt that can be encoded, and problems; `together`: groups of prompts that are trained together."""
    views: list[TokenView] = []
    problems: list[Problem] = []
    ids: dict[str, list[tuple[int, ...]]] = {}  # alias -> ids of each wording
    for prompt in prompts:
        try:
            encoded, *others = encode_wordings([*prompt.wordings, *prompt.held_out], chat)
        except InputError as error:
            problems.append(Problem(prompt.alias, str(error).removeprefix(f"{prompt.alias}: ")))
            continue
        ids[prompt.alias] = [e.prompt_ids for e in (encoded, *others)][: len(prompt.wordings)]
        problems.extend(
            Problem(prompt.alias, remark.removeprefix(f"{prompt.alias}: "), severity="warning") for remark in encoded.remarks
        )
        view = TokenView(encoded, _answers(prompt), chat.tokenizer)
        problems.extend(_unknown_tokens(view))
        views.append(view)
    for trained in ([prompt for prompt in group if prompt.alias in ids] for group in together):
        wordings = [wording for prompt in trained for wording in prompt.wordings]
        problems.extend(
            clash.problem()
            for clash in clashes(wordings, (asked for prompt in trained for asked in ids[prompt.alias]))
            if conversation(clash.first, chat.settings.system)
            != conversation(clash.second, chat.settings.system)  # otherwise already reported
        )
    return views, problems


def _answers(prompt: Prompt) -> tuple[str, ...]:
    if prompt.independent and (parts := parts_of(prompt)) is not None:
        return tuple(value for values in parts.values for value in values)
    return tuple(answer.text for answer in answer_texts(prompt))


def _unknown_tokens(view: TokenView) -> Iterator[Problem]:
    unknown = view.tokenizer.unk_token_id
    if unknown is None or not any(unknown in trie.tokens for trie in {id(trie): trie for trie, _ in view.paths}.values()):
        return
    for text, (trie, path) in zip(view.answers, view.paths, strict=True):
        if unknown in trie.path(path)[:-1]:
            yield Problem(
                view.alias, f"the target {text!r} contains characters that this tokenizer does not have", "write it without them"
            )
