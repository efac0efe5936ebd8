"""The frame of answers to one prompt: the text that the chat template puts around an answer, where it begins, what ends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffusecli.models.chat import Chat
from diffusecli.models.tokens import decode, excerpt, last_tokens, special_ids, tokenise
from diffusecli.prompts.prompt import Prompt
from diffusecli.system.errors import InputError

_PROBE_ANSWER = "some4answer"  # a probe to find the text around every answer


@dataclass(frozen=True)
class Frame:
    """The text and tokens around an answer to one prompt, the same for all answers."""

    prompt: Prompt
    tokenizer: Any
    opening: str  # the text before an answer
    thoughts: str  # its end, which only whole conversations have
    prompt_ids: tuple[int, ...]
    before: str  # white space before an answer that is part of its tokens
    after: str  # text between the answer and its end
    ending: str  # all text after an answer
    endings: frozenset[int]  # tokens that may end a turn
    stop_ids: frozenset[int]
    stop_text: str
    terminator: int | None  # the token that ends an answer, last in its path; None if a text does

    @property
    def by_token(self) -> bool:
        """Whether a separate token ends an answer."""
        return self.terminator is not None

    @classmethod
    def of(cls, prompt: Prompt, chat: Chat, messages: list[dict[str, str]]) -> Frame:
        """Found from a rendered probe answer."""
        tokenizer, opening = chat.tokenizer, chat.render(messages, prompt.alias)
        whole = chat.render(messages, prompt.alias, _PROBE_ANSWER)
        if whole.count(_PROBE_ANSWER) != 1:
            raise InputError(f"{prompt.alias}: the chat template does not write an answer once and unchanged ({_PROBE_ANSWER!r} becomes "
                             f"{excerpt(whole[-60:])!r}). Set another chat_template")  # fmt: skip
        if not whole.startswith(opening):
            up_to_answer = whole[: whole.find(_PROBE_ANSWER) + len(_PROBE_ANSWER)]
            raise InputError(
                f"{prompt.alias}: the chat template's conversations do not continue its prompts: a prompt ends with "
                f"{last_tokens(tokenizer, opening)}, the conversation has {last_tokens(tokenizer, up_to_answer)} there. "
                "Set chat_template_kwargs or your own chat_template"
            )
        before, ending = whole[len(opening) :].split(_PROBE_ANSWER)
        thoughts = before if before.strip() else ""  # white space is trained as part of the answer
        opening, before = opening + thoughts, before.removeprefix(thoughts)
        stops = chat.eos_ids | ({tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else frozenset())
        endings = stops | special_ids(tokenizer)
        terminator = next((token for token in tokenise(tokenizer, ending) if token in endings), None)
        if terminator is not None:
            after, stop_text = ending.partition(decode(tokenizer, [terminator], special=True))[0], ""
            stops |= {terminator}
        else:
            after, stop_text = "", ending.rstrip() or ending
            if not ending and prompt.eos:
                raise InputError(
                    f"{prompt.alias}: the chat template does not end turns, so answers would never stop. Set a chat_template that does"
                )
        return cls(prompt, tokenizer, opening, thoughts, tuple(tokenise(tokenizer, opening)), before, after, ending, endings,
                   frozenset(stops), stop_text, terminator)  # fmt: skip

    @property
    def last_part(self) -> tuple[str, tuple[int, ...]] | None:
        """The end of the opening from its last special token on, as text and tokens; None if they do not correspond.

        Text after a special token has the same tokens without the text before it.
        """
        last = max((place for place, token in enumerate(self.prompt_ids) if token in self.endings), default=None)
        if last is None:
            return None
        ids = self.prompt_ids[last:]
        text = decode(self.tokenizer, ids, special=True)
        return (text, ids) if self.opening.endswith(text) and tuple(tokenise(self.tokenizer, text)) == ids else None

    def error(self, message: str) -> InputError:
        """The error, prefixed with the prompt's alias."""
        return InputError(f"{self.prompt.alias}: {message}")
