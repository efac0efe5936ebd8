"""What a tokenizer makes of prompts, for people to look at, and which prompts it cannot take.

Knows prompts and a chat; loads nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from diffusecli.models.chat import Chat
from diffusecli.models.encoding import EncodedPrompt, encode_wordings
from diffusecli.prompts.answer_texts import answer_texts
from diffusecli.prompts.conflicts import clashes, conversation
from diffusecli.prompts.prompt import Prompt
from diffusecli.system.errors import InputError, Problem


@dataclass(frozen=True)
class TokenView:
    """What a tokenizer makes of a prompt."""

    alias: str
    prompt_tokens: tuple[str, ...]
    target_tokens: tuple[tuple[str, tuple[str, ...]], ...]  # (answer text, its tokens with the terminator)
    fed_as_rows: int  # tokens that one row per target feeds
    fed_packed: int  # tokens that the prefix tree feeds

    @property
    def longest(self) -> int:
        """The tokens of the longest answer, its end included: what sampling takes at least."""
        return max((len(tokens) for _, tokens in self.target_tokens), default=0)


def view_tokens(
    prompts: Sequence[Prompt], together: Sequence[Sequence[Prompt]], chat: Chat
) -> tuple[list[TokenView], list[Problem]]:
    """A view of each prompt that can be encoded, and what is wrong or doubtful; `together` are prompts that are trained on together."""
    views: list[TokenView] = []
    problems: list[Problem] = []
    ids: dict[str, list[tuple[int, ...]]] = {}  # alias -> of each wording
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
        paths = [encoded.trie.path(index) for index in range(len(encoded.trie.leaves))]
        answers = [answer.text for answer in answer_texts(prompt)]
        problems.extend(_unknown_tokens(prompt, chat.tokenizer, answers, paths))
        views.append(_view(prompt, encoded, chat.tokenizer, answers, paths))
    for trained in ([prompt for prompt in group if prompt.alias in ids] for group in together):
        wordings = [wording for prompt in trained for wording in prompt.wordings]
        problems.extend(
            clash.problem()
            for clash in clashes(wordings, (asked for prompt in trained for asked in ids[prompt.alias]))
            if conversation(clash.first, chat.settings.system)
            != conversation(clash.second, chat.settings.system)  # else known already
        )
    return views, problems


def _view(
    prompt: Prompt, encoded: EncodedPrompt, tokenizer: Any, answers: Sequence[str], paths: Sequence[tuple[int, ...]]
) -> TokenView:
    return TokenView(
        prompt.alias,
        tuple(tokenizer.convert_ids_to_tokens(list(encoded.prompt_ids))),
        tuple((text, tuple(tokenizer.convert_ids_to_tokens(list(path)))) for text, path in zip(answers, paths, strict=True)),
        sum(len(encoded.prompt_ids) + len(path) for path in paths),
        len(encoded.prompt_ids) + len(encoded.trie.internal),
    )


def _unknown_tokens(prompt: Prompt, tokenizer: Any, answers: list[str], paths: list[tuple[int, ...]]) -> Iterator[Problem]:
    unknown = tokenizer.unk_token_id
    for text, path in zip(answers, paths, strict=True):
        if unknown is not None and unknown in path[:-1]:
            yield Problem(
                prompt.alias, f"the target {text!r} holds characters this tokenizer does not know", "write it without them"
            )
