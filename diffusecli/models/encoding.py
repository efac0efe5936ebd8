"""The tokenizer boundary: a `Prompt` becomes prompt ids and a `TokenTrie`.

The sole owner of terminators and stop tokens. Knows nothing of weights or tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from diffusecli.files.text import canonical, holds_half_characters
from diffusecli.models.chat import Chat
from diffusecli.models.trie import TokenTrie
from diffusecli.prompts.prompt import Prompt
from diffusecli.system.errors import InputError, Problem

_PROBE_ANSWER = "some4answer"  # what surrounds it is what the template puts around every answer
_ANCHORS = ("a", "0", ".", "\n")  # texts that tokens are decoded, or encoded, after


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt in the model's tokens. P prompt tokens, K targets, J paths (a target has one per response variant)."""

    prompt: Prompt
    prompt_ids: tuple[int, ...]  # P: the conversation up to where the answer begins
    trie: TokenTrie  # J paths; empty when the prompt has no targets
    owners: tuple[int, ...]  # J: the target each path spells
    stop_ids: frozenset[int]  # any of these ends an answer
    stop_text: str = ""  # so does this text, where the template ends turns by no token of its own
    around: tuple[str, str] = ("", "")  # what the template puts before and after an answer; no part of it
    remarks: tuple[str, ...] = ()  # what the template or tokenizer changed, for the user

    @property
    def alias(self) -> str:
        """The prompt's path, its name in every output."""
        return self.prompt.alias

    @property
    def longest(self) -> int:
        """The tokens of the longest target with a response variant before it, its end included; 0 without targets."""
        return max(self.trie.depths, default=0)

    def longer_than(self, tokens: int) -> int:
        """How many targets take more than so many tokens, in at least one of their variants."""
        return len({owner for owner, leaf in zip(self.owners, self.trie.leaves, strict=True) if self.trie.depths[leaf] > tokens})

    def text(self, tokenizer: Any, ids: Sequence[int]) -> str:
        """The answer that generated ids spell, without what the template puts around it."""
        (before, after), spelled = self.around, decode_answer(tokenizer, ids)
        if before.startswith(spelled):
            return ""  # it has not begun: a stop text may stand in what comes before it
        return spelled.removeprefix(before).removesuffix(after)


def encode_prompt(prompt: Prompt, chat: Chat) -> EncodedPrompt:
    """Tokenise whole conversations, one per target and response variant, and merge them into a trie.

    The prompt is the exact common token prefix (the template's generation prompt, and what it puts before every answer, such as an
    empty block of thoughts); what follows the first end-of-turn token is dropped, since a model never generates it. Where prompt and
    answer share a token, the answer is tokenised by itself. Every path is decoded and compared with its answer.
    Raises `InputError` when that fails, when the template ends no turn, when two targets cannot be told apart in tokens, or when the
    model does not know a token.
    """
    messages, folded = chat.messages(prompt)
    frame = _Frame.of(prompt, chat, messages)
    strings = [(index, variant + target) for index, target in enumerate(prompt.targets) for variant in prompt.variants]
    answers = [text for _, text in strings]
    rows = _rows(frame, answers, [chat.render(messages, prompt.alias, answer) for answer in answers])
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
    remarks += _changes(frame, rows)
    paths = [row.path for row in rows] if prompt.eos else [_unended(frame, row) for row in rows]
    _require_known(frame, chat.rows, answers, paths)
    stop_ids = frozenset(token for token in frame.stop_ids if chat.rows is None or token < chat.rows)
    remarks += [f"{_named(frame.tokenizer, token)} would end an answer, but the model's embedding has {chat.rows} rows: it is never said"
                for token in sorted(frame.stop_ids - stop_ids)]  # fmt: skip
    _require_distinct(prompt, paths, answers)
    weights = [prompt.probabilities[index] / len(prompt.variants) for index, _ in strings]
    return EncodedPrompt(
        prompt, frame.prompt_ids, TokenTrie.build(paths, weights), tuple(index for index, _ in strings), stop_ids,
        frame.stop_text, (frame.before, frame.after), tuple(remarks),
    )  # fmt: skip


def decode_answer(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of generated ids without special tokens, spaces as the model wrote them.

    Some tokenizers take the first space of a text away, so the ids are decoded after others that are cut off again.
    An id that the tokenizer does not have (embeddings are often padded) becomes "\ufffd", the sign for what cannot be read.
    """
    anchor, length = _anchor(tokenizer)
    if all(_is_known(tokenizer, token) for token in ids):
        return _decode(tokenizer, [*anchor, *ids])[length:]
    known: list[list[int]] = [[]]
    for token in ids:
        if _is_known(tokenizer, token):
            known[-1].append(token)
        else:
            known.append([])
    return "\ufffd".join(_decode(tokenizer, [*anchor, *some])[length:] for some in known)


@lru_cache(maxsize=500_000)
def _is_known(tokenizer: Any, token: int) -> bool:
    """Whether the tokenizer has such a token."""
    try:
        return tokenizer.convert_ids_to_tokens([token])[0] is not None
    except (IndexError, KeyError, TypeError, ValueError, OverflowError):  # tokenizers in Python
        return False


def _decode(tokenizer: Any, ids: Sequence[int], *, special: bool = False) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False))


@lru_cache(maxsize=8)
def _anchor(tokenizer: Any) -> tuple[tuple[int, ...], int]:
    """An ordinary token that spells one sign, and the length of its text; nothing where there is none."""
    for sign in _ANCHORS:
        ids = _tokenise(tokenizer, sign)[-1:]
        if ids and _decode(tokenizer, ids) == sign:
            return tuple(ids), len(sign)
    return (), 0


def _tokenise(tokenizer: Any, text: str) -> list[int]:
    """Rendered conversations hold their own special tokens: none are added."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


@dataclass(frozen=True)
class _Frame:
    """What the template makes of one prompt, whatever is answered: all that stands around an answer."""

    prompt: Prompt
    tokenizer: Any
    opening: str  # the text up to where an answer begins
    thoughts: str  # the end of it that only whole conversations have
    prompt_ids: tuple[int, ...]
    before: str  # white space before an answer that is part of its tokens
    after: str  # and what stands between the answer and its end
    ending: str  # all that follows an answer
    endings: frozenset[int]  # the tokens that may end a turn
    stop_ids: frozenset[int]
    stop_text: str
    terminator: int | None  # the token that ends an answer, the last of its path; None where a text does

    @property
    def by_token(self) -> bool:
        """Whether a token of its own ends an answer."""
        return self.terminator is not None

    @classmethod
    def of(cls, prompt: Prompt, chat: Chat, messages: list[dict[str, str]]) -> _Frame:
        """Learned from an answer that cannot be mistaken for anything else."""
        tokenizer, opening = chat.tokenizer, chat.render(messages, prompt.alias)
        whole = chat.render(messages, prompt.alias, _PROBE_ANSWER)
        if whole.count(_PROBE_ANSWER) != 1:
            raise InputError(f"{prompt.alias}: the chat template does not write an answer once and as it is ({_PROBE_ANSWER!r} becomes "
                             f"{_excerpt(whole[-60:])!r}), set another chat_template")  # fmt: skip
        if not whole.startswith(opening):
            up_to_answer = whole[: whole.find(_PROBE_ANSWER) + len(_PROBE_ANSWER)]
            raise InputError(
                f"{prompt.alias}: the chat template's conversations do not go on from its prompts: a prompt ends in "
                f"{_last(tokenizer, opening)}, the conversation has {_last(tokenizer, up_to_answer)} there; "
                "set chat_template_kwargs or a chat_template of your own"
            )
        before, ending = whole[len(opening) :].split(_PROBE_ANSWER)
        thoughts = before if before.strip() else ""  # white space is learned as part of the answer
        opening, before = opening + thoughts, before.removeprefix(thoughts)
        stops = chat.eos_ids | ({tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else frozenset())
        endings = stops | _special_ids(tokenizer)
        terminator = next((token for token in _tokenise(tokenizer, ending) if token in endings), None)
        if terminator is not None:
            after, stop_text = ending.partition(_decode(tokenizer, [terminator], special=True))[0], ""
            stops |= {terminator}
        else:
            after, stop_text = "", ending.rstrip() or ending
            if not ending and prompt.eos:
                raise InputError(
                    f"{prompt.alias}: the chat template ends no turn, so an answer could never stop; set a chat_template that does"
                )
        return cls(prompt, tokenizer, opening, thoughts, tuple(_tokenise(tokenizer, opening)), before, after, ending, endings,
                   frozenset(stops), stop_text, terminator)  # fmt: skip

    def error(self, message: str) -> InputError:
        """With the prompt's name before it."""
        return InputError(f"{self.prompt.alias}: {message}")


@dataclass(frozen=True)
class _Row:
    """An answer, as it is trained, and its tokens with the terminator."""

    answer: str
    trained: str
    path: tuple[int, ...]


def _rows(frame: _Frame, answers: Sequence[str], rendered: Sequence[str]) -> list[_Row]:
    """Cut out of whole conversations; raises `InputError` for an answer that its tokens do not spell."""
    ended = [
        frame.before + _shown(frame, *pair) + (frame.stop_text or frame.ending) for pair in zip(answers, rendered, strict=True)
    ]
    paths = [_path(frame, tail) for tail in _following(frame, ended)]
    return [_row(frame, answer, path) for answer, path in zip(answers, paths, strict=True)]


def _shown(frame: _Frame, answer: str, rendered: str) -> str:
    """The answer as the template writes it: white space at its ends may be lost, nothing else."""
    shown = rendered.removeprefix(frame.opening + frame.before).removesuffix(frame.ending)
    if rendered != f"{frame.opening}{frame.before}{shown}{frame.ending}":
        raise frame.error(
            f"the chat template puts something else around the target {answer!r} than around other answers; write it otherwise or set "
            "another chat_template"
        )
    if canonical(shown) != canonical(answer):
        raise frame.error(f"the chat template changes the target {answer!r} (to {_excerpt(shown)!r}), write it so that it survives")
    if holds_half_characters(shown):
        raise frame.error(f"the target {answer!r} holds half a sign (a surrogate), which no tokenizer takes; write it without")
    if frame.stop_text and (shown + frame.stop_text).find(frame.stop_text) < len(shown):
        raise frame.error(
            f"the target {answer!r} holds, or begins, {frame.stop_text!r}, which ends an answer in this chat template; write it without"
        )
    return shown


def _path(frame: _Frame, tail: tuple[int, ...]) -> tuple[int, ...]:
    """What follows the prompt up to the first token that ends it, or all where a text does that."""
    if not frame.by_token:
        return tail
    return tail[: next((i for i, token in enumerate(tail) if token in frame.endings), len(tail) - 1) + 1]


def _row(frame: _Frame, answer: str, path: tuple[int, ...]) -> _Row:
    spelled = decode_answer(frame.tokenizer, path[:-1] if frame.by_token else path)
    trained = spelled.removeprefix(frame.before).removesuffix(frame.stop_text or frame.after)
    if canonical(trained) != canonical(answer):
        raise frame.error(f"the target {answer!r} comes back from the tokenizer as {trained!r}, write it so that it survives")
    return _Row(answer, trained, path)


def _unended(frame: _Frame, row: _Row) -> tuple[int, ...]:
    """The tokens of an answer that may go on: those of its path that spell no more than it."""
    text = frame.before + row.trained
    for length in range(len(row.path) - frame.by_token, 0, -1):
        spelled = decode_answer(frame.tokenizer, row.path[:length])
        if spelled == text:
            return row.path[:length]
        if not spelled.startswith(text):
            break
    return _following(frame, [text])[0]


def _following(frame: _Frame, texts: Sequence[str]) -> list[tuple[int, ...]]:
    """The tokens of texts where they follow the prompt: those that the whole has more, else those of the text by itself.

    The latter where the whole has a token that is of both. Proved by decoding; raises `InputError` when nothing decodes to the whole.
    """
    length = len(frame.prompt_ids)
    wholes = frame.tokenizer([frame.opening + text for text in texts], add_special_tokens=False)["input_ids"] if texts else []
    return [
        tuple(whole[length:]) if tuple(whole[:length]) == frame.prompt_ids else _alone(frame, text)
        for whole, text in zip(wholes, texts, strict=True)
    ]


def _alone(frame: _Frame, text: str) -> tuple[int, ...]:
    """Tokens of a text by itself, as it is or after a sign that is cut off again, that continue the prompt's text.

    Best exactly; where none do, the text itself is what its tokens do not spell, and whoever decodes them finds out how.
    """
    tokenizer = frame.tokenizer
    asked = _decode(tokenizer, frame.prompt_ids, special=True)
    close: list[tuple[int, ...]] = []
    for sign in ("", *_ANCHORS):
        first, whole = _tokenise(tokenizer, sign), _tokenise(tokenizer, sign + text)
        ids = tuple(whole[len(first) :])
        spelled = _decode(tokenizer, [*frame.prompt_ids, *ids], special=True)
        if whole[: len(first)] == first and spelled == asked + text:
            return ids
        if whole[: len(first)] == first and spelled.startswith(asked):
            close.append(ids)
    if close:
        return close[-1]  # behind a sign no space is put before the text
    raise frame.error(
        f"prompt and answer cannot be told apart in tokens: the prompt ends in {_last(tokenizer, frame.opening)}, with the answer "
        f"{_excerpt(text)!r} it goes on as {_last(tokenizer, frame.opening + text)}; set another chat_template"
    )


def _changes(frame: _Frame, rows: Sequence[_Row]) -> list[str]:
    """A sentence when answers are trained otherwise than they are written."""
    changed = [row for row in rows if row.trained != row.answer]
    if not changed:
        return []
    first, more = changed[0], f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
    who = (
        "the chat template trims white space" if first.trained.strip() == first.answer.strip() else "the tokenizer normalises text"
    )
    return [f"{frame.prompt.alias}: {who}: {first.answer!r} is trained as {first.trained!r}{more}"]


def _special_ids(tokenizer: Any) -> frozenset[int]:
    added = (index for index, token in tokenizer.added_tokens_decoder.items() if token.special)
    return frozenset(tokenizer.all_special_ids) | frozenset(added)


def _last(tokenizer: Any, text: str) -> list[str]:
    """The last tokens of a text, to show."""
    tokens: list[str] = tokenizer.convert_ids_to_tokens(_tokenise(tokenizer, text)[-8:])
    return tokens


def _excerpt(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"


def _require_known(frame: _Frame, rows: int | None, answers: Sequence[str], paths: Sequence[tuple[int, ...]]) -> None:
    """Report the first token that the model's embedding has no row for, where it is used and what to do."""
    if rows is None:
        return
    used = [("the request or its chat template", frame.prompt_ids)]
    used += [("the end of every answer", () if frame.terminator is None else (frame.terminator,))]
    used += [(f"the target {answer!r}", path) for answer, path in zip(answers, paths, strict=True)]
    for place, ids in used:
        if unknown := next((token for token in ids if token >= rows), None):
            raise frame.error(
                f"{place} holds {_named(frame.tokenizer, unknown)}, but the model's embedding has {rows} rows (ids 0 to {rows - 1}). "
                "Use the tokenizer that belongs to the model, or add rows to the model (`resize_token_embeddings`) and train them"
            )


def _named(tokenizer: Any, token: int) -> str:
    return f"the token {tokenizer.convert_ids_to_tokens([token])[0]!r} (id {token})"


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
