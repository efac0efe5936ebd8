"""Encode and decode text, and show tokens in messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, TypeVar

from diffusecli.system.errors import shortened

_Item = TypeVar("_Item")
_CHUNK = 10_000  # texts per call of a tokenizer

ANCHORS = ("a", "0", ".", "\n")  # ids are decoded, or texts encoded, after one of these


def decode_answer(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of generated ids without special tokens, with exact spaces.

    Some tokenizers strip the first space of a text, so the ids are decoded after an anchor, whose text is removed.
    An id that the tokenizer does not have (embeddings are often padded) becomes "\ufffd", the replacement character.
    """
    anchor, length = _anchor(tokenizer)
    if all(_is_known(tokenizer, token) for token in ids):
        return decode(tokenizer, [*anchor, *ids])[length:]
    known: list[list[int]] = [[]]
    for token in ids:
        if _is_known(tokenizer, token):
            known[-1].append(token)
        else:
            known.append([])
    return "\ufffd".join(decode(tokenizer, [*anchor, *some])[length:] for some in known)


def decode_answers(tokenizer: Any, rows: Sequence[Sequence[int]]) -> list[str]:
    """`decode_answer` of each row, many at a time."""
    if not all(_is_known(tokenizer, token) for token in set(chain.from_iterable(rows))):
        return [decode_answer(tokenizer, ids) for ids in rows]
    anchor, length = _anchor(tokenizer)
    texts: list[str] = []
    for some in _by_chunks(rows):
        anchored = [[*anchor, *ids] for ids in some]
        decoded = tokenizer.batch_decode(anchored, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        texts += (text[length:] for text in decoded)
    return texts


@lru_cache(maxsize=500_000)
def _is_known(tokenizer: Any, token: int) -> bool:
    """Whether the tokenizer has this token."""
    try:
        return tokenizer.convert_ids_to_tokens([token])[0] is not None
    except (IndexError, KeyError, TypeError, ValueError, OverflowError):  # tokenizers in Python
        return False


def decode(tokenizer: Any, ids: Sequence[int], *, special: bool = False) -> str:
    """The text of ids without clean-up, optionally with special tokens."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False))


@lru_cache(maxsize=8)
def _anchor(tokenizer: Any) -> tuple[tuple[int, ...], int]:
    """An ordinary token of one character and the length of its text; empty if there is none."""
    for sign in ANCHORS:
        ids = tokenise(tokenizer, sign)[-1:]
        if ids and decode(tokenizer, ids) == sign:
            return tuple(ids), len(sign)
    return (), 0


def tokenise(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text. Adds no special tokens, because rendered conversations contain them."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def tokenise_all(tokenizer: Any, texts: Sequence[str], *, in_backend: bool = False) -> Iterator[list[int]]:
    """`tokenise` of each text, many at a time. `in_backend` calls the tokenizer's Rust backend directly, which halves the time."""
    backend = getattr(tokenizer, "backend_tokenizer", None) if in_backend else None
    for some in _by_chunks(texts):
        if backend is None:
            yield from tokenizer(some, add_special_tokens=False)["input_ids"]
        else:
            yield from (encoding.ids for encoding in backend.encode_batch_fast(some, add_special_tokens=False))


def _by_chunks(items: Sequence[_Item]) -> Iterator[list[_Item]]:
    """Chunks of items, because tokenizers keep much more per text than its tokens."""
    for start in range(0, len(items), _CHUNK):
        yield list(items[start : start + _CHUNK])


def special_ids(tokenizer: Any) -> frozenset[int]:
    """The special tokens, which are not text."""
    added = (index for index, token in tokenizer.added_tokens_decoder.items() if token.special)
    return frozenset(tokenizer.all_special_ids) | frozenset(added)


def last_tokens(tokenizer: Any, text: str) -> list[str]:
    """The last tokens of a text, for messages."""
    tokens: list[str] = tokenizer.convert_ids_to_tokens(tokenise(tokenizer, text)[-8:])
    return tokens


def excerpt(text: str) -> str:
    """At most 80 characters of a text, for messages."""
    return shortened(text, 80)


def named_token(tokenizer: Any, token: int) -> str:
    """A token in messages."""
    return f"the token {tokenizer.convert_ids_to_tokens([token])[0]!r} (id {token})"
