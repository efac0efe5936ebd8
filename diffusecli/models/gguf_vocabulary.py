"""A tokenizer as the metadata of a GGUF file: tokens, types, merges or scores, special tokens.

llama.cpp has its own tokenizers. A file only names the rule that splits text (`tokenizer.ggml.pre`). A tokenizer whose rule has no name
is refused, because other tokens would give other probabilities.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from unicodedata import is_normalized

from diffusecli.system.errors import InputError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Types of tokens (`llama_token_type`)."""

_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASES = (rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*")
_SLASHES = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"

_BY_PATTERN = {
    (rf"{_ENDINGS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}", True): "llama-bpe",
    (rf"{_ENDINGS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}", False): "dbrx",
    (rf"{_ENDINGS}|{_WORDS}|\p{{N}}|{_REST}", False): "qwen2",
    (rf"{_CASES[0]}|{_CASES[1]}|\p{{N}}|{_SLASHES}", True): "tekken",
    (rf"{_CASES[0]}{_ENDINGS}?|{_CASES[1]}{_ENDINGS}?|\p{{N}}{{1,3}}|{_SLASHES}", False): "gpt-4o",
}
"""llama.cpp's names of pre-tokenizers: by the pattern that splits text, and whether whole words are tokens whatever the merges."""

_CASE_OF_LETTERS = {"tekken", "gpt-4o"}
"""Pre-tokenizers for which llama.cpp knows the case of ASCII letters only."""

_STRIPS_NOTHING = {"<unk>", "<s>", "<|endoftext|>"}
"""For models named Phi-3, llama.cpp removes white space after all special tokens but these."""


def vocabulary(tokenizer: Any, rows: int, texts: Sequence[str], *, begins: bool) -> dict[str, Any]:
    """The metadata of a tokenizer for a model with `rows` token ids.

    `texts` are conversations of the run: where llama.cpp splits some texts differently, these must have the same tokens.
    `begins`: whether prompts begin with the BOS token. Raises `InputError` for a tokenizer that llama.cpp does not have.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise _refused(f"its tokenizer has no tokenizer.json ({type(tokenizer).__name__})")
    state = json.loads(backend.to_str())
    if state["model"]["type"] != "BPE":
        raise _refused(f"its tokenizer is not BPE but {state['model']['type']}")
    _require_expressible(state)
    by_bytes = _has_byte_pieces(state)
    made = _byte_level(state, texts) if by_bytes else _sentencepiece(state, _prefixed(state, tokenizer, texts))
    ids = _ids(tokenizer, rows)
    return {**made, **_tokens(tokenizer, state, rows, scored=not by_bytes), **ids, "tokenizer.ggml.add_bos_token": begins,
            "tokenizer.ggml.add_eos_token": False}  # fmt: skip


def strips_after_specials(tokenizer: Any) -> bool:
    """Whether special tokens remove the white space after them, as in Phi-3. llama.cpp does so if the model's name contains phi-3."""
    return any(token.rstrip for token in tokenizer.added_tokens_decoder.values())


def _refused(reason: str) -> InputError:
    return InputError(
        f"GGUF: {reason}. llama.cpp might split text into other tokens, which changes probabilities. Merge into a folder instead "
        "(`diffuse export RUN -o DIR`), then convert it with llama.cpp's own convert_hf_to_gguf.py"
    )


def _require_expressible(state: Mapping[str, Any]) -> None:
    """Raise `InputError` for properties of tokens that a GGUF file cannot contain."""
    for token in state["added_tokens"]:
        if token["lstrip"] or token["single_word"]:
            raise _refused(f"the token {token['content']!r} of its tokenizer changes the text around it")
    strips = {token["content"]: token["rstrip"] for token in state["added_tokens"]}
    if any(strips.values()) and any(strip == (text in _STRIPS_NOTHING) for text, strip in strips.items()):
        text = next(text for text, strip in strips.items() if strip == (text in _STRIPS_NOTHING))
        raise _refused(f"the token {text!r} of its tokenizer treats white space after it differently from Phi-3's tokens")


def _parts(step: Any, name: str) -> list[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, as a list."""
    return [] if step is None else step[name] if step["type"] == "Sequence" else [step]


def _has_byte_pieces(state: Mapping[str, Any]) -> bool:
    return any(part["type"] == "ByteLevel" for part in _parts(state["pre_tokenizer"], "pretokenizers"))


# --- tokenizers of bytes (GPT-2's kind) ---


def _byte_level(state: Mapping[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    """Merges and the name of the pre-tokenizer."""
    name = _pre_tokenizer(state, texts)
    if name in _CASE_OF_LETTERS:
        _require_ascii_case(texts)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in state["model"]["merges"]]
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": name, "tokenizer.ggml.merges": merges}


def _pre_tokenizer(state: Mapping[str, Any], texts: Sequence[str]) -> str:
    """llama.cpp's name of the pre-tokenizer, from its structure."""
    normalizers = [part["type"] for part in _parts(state["normalizer"], "normalizers")]
    if normalizers not in ([], ["NFC"]):
        raise _refused(f"its tokenizer normalises text ({', '.join(normalizers)})")
    if normalizers and not all(is_normalized("NFC", text) for text in texts):  # llama.cpp normalises nothing
        raise _refused("its tokenizer composes characters (NFC), and the run's prompts have some that are not composed")
    *before, last = _parts(state["pre_tokenizer"], "pretokenizers")
    whole = bool(state["model"].get("ignore_merges"))
    found = None
    if last["type"] == "ByteLevel" and not last["add_prefix_space"] and state["model"]["merges"]:
        if last["use_regex"] and not whole:
            digits = [part["type"] == "Digits" and part["individual_digits"] for part in before]
            found = {(): "gpt-2", (True,): "smollm"}.get(tuple(digits))
        elif not last["use_regex"] and len(before) == 1 and before[0]["type"] == "Split":
            split = before[0]
            if (split["behavior"], split["invert"]) == ("Isolated", False):
                found = _BY_PATTERN.get((split["pattern"].get("Regex", ""), whole))
    if found is None:
        raise _refused("llama.cpp has no name for the pre-tokenizer of its tokenizer")
    return found


def _require_ascii_case(texts: Sequence[str]) -> None:
    """Raise `InputError` if a text has letters whose case llama.cpp does not know."""
    for text in texts:
        if odd := next((sign for sign in text if not sign.isascii() and sign.isalpha() and sign.lower() != sign.upper()), None):
            raise _refused(
                f"llama.cpp splits words with letters such as {odd!r} differently from this tokenizer, and the run's prompts have some"
            )


# --- tokenizers of characters (SentencePiece's kind) ---

_SPACE = "▁"


def _prefixed(state: Mapping[str, Any], tokenizer: Any, texts: Sequence[str]) -> bool:
    """Whether a space is put before every piece of text. Raises `InputError` if pieces are treated differently."""
    normalizers = [_plain(part) for part in _parts(state["normalizer"], "normalizers")]
    pre = [_plain(part) for part in _parts(state["pre_tokenizer"], "pretokenizers")]
    spaces = ("Replace", " ", _SPACE)
    if normalizers == [("Prepend", _SPACE), spaces] and pre == []:
        return True
    if normalizers == [spaces] and pre in ([], [("Split", " ")]):  # no space is left to split at
        return False
    if not normalizers and len(pre) == 1 and pre[0][0] == "Metaspace" and pre[0][1] == _SPACE and not pre[0][3]:
        if pre[0][2] == "always" and not _begin_with_space(state, texts):
            return True
        if pre[0][2] == "never":
            return False
        if pre[0][2] == "first" and all(tokenizer.bos_token and text.startswith(tokenizer.bos_token) for text in texts):
            return False  # only the first piece of a text has it, and that is a special token
    raise _refused("llama.cpp does not have the normalisation of its tokenizer")


def _begin_with_space(state: Mapping[str, Any], texts: Sequence[str]) -> bool:
    """Whether a text, or a part of it after a special token, begins with a space. Metaspace puts none before that, but llama.cpp does."""
    specials = "|".join(re.escape(token["content"]) for token in state["added_tokens"])
    return any(part.startswith(" ") for text in texts for part in (re.split(specials, text) if specials else [text]))


def _plain(part: Mapping[str, Any]) -> tuple[Any, ...]:
    """A step as its type and settings."""
    kind = part["type"]
    if kind == "Replace":
        return kind, part["pattern"].get("String"), part["content"]
    if kind == "Prepend":
        return kind, part["prepend"]
    if kind == "Metaspace":
        return kind, part["replacement"], part["prepend_scheme"], part["split"]
    return (kind, part["pattern"].get("String")) if kind == "Split" else (kind,)


def _sentencepiece(state: Mapping[str, Any], prefixed: bool) -> dict[str, Any]:
    if not state["model"].get("byte_fallback") or state["model"].get("ignore_merges"):
        raise _refused("its tokenizer is neither SentencePiece's nor GPT-2's kind")
    return {"tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default", "tokenizer.ggml.add_space_prefix": prefixed}


def merge_scores(merges: Sequence[Any]) -> dict[str, float]:
    """The score of each token that merges make: SentencePiece joins the pair with the highest score first.

    Raises `InputError` if merges cannot be ordered by the tokens that they make.

    >>> merge_scores([["a", "b"], ["b", "c"], ["ab", "c"], ["a", "bc"]])
    {'ab': -1.0, 'bc': -2.0, 'abc': -3.0}
    """
    scores: dict[str, float] = {}
    last = ""
    for pair in merges:
        first, second = pair.split(" ") if isinstance(pair, str) else pair
        made = first + second
        if made not in scores:
            scores[made] = -float(len(scores) + 1)
        elif made != last and len(set(made)) > 1:  # runs of one character grow from the left in any order of their merges
            raise _refused("the order of its tokenizer's merges is not that of SentencePiece")
        last = made if len(set(made)) > 1 else last
    return scores


# --- tokens of both kinds ---


def _tokens(tokenizer: Any, state: Mapping[str, Any], rows: int, *, scored: bool) -> dict[str, Any]:
    """Texts and types of all ids below `rows`; ids without a token are marked as unused."""
    added = {token["id"]: token for token in state["added_tokens"]}
    pieces = {token: piece for piece, token in state["model"]["vocab"].items()} | {
        token: entry["content"] for token, entry in added.items()
    }
    special = set(tokenizer.all_special_ids)
    known = set(pieces.values())
    texts: list[str] = []
    types: list[int] = []
    for token in range(rows):
        piece = pieces.get(token)
        if not piece:
            piece = f"[PAD{token}]"
            while piece in known:
                piece = f"{piece}_"
            kind = UNUSED
        elif scored and token == tokenizer.unk_token_id:
            kind = UNKNOWN
        elif token in added:
            kind = CONTROL if added[token]["special"] or token in special else USER_DEFINED
        else:
            kind = BYTE if scored and re.fullmatch(r"<0x[0-9A-F]{2}>", piece) else NORMAL
        if scored and kind == USER_DEFINED:
            piece = piece.replace("▁", " ")  # llama.cpp matches and writes these as they stand
        texts.append(piece)
        types.append(kind)
    made: dict[str, Any] = {"tokenizer.ggml.tokens": texts, "tokenizer.ggml.token_type": types}
    if scored:
        scores = merge_scores(state["model"]["merges"])
        lowest = -float(len(scores) + 1)
        made["tokenizer.ggml.scores"] = [
            scores.get(text, lowest) if kind == NORMAL else 0.0 for text, kind in zip(texts, types, strict=True)
        ]
    return made


def _ids(tokenizer: Any, rows: int) -> dict[str, int]:
    """Special tokens by their roles. The end of answers is added by the caller."""
    roles = {"bos": tokenizer.bos_token_id, "unknown": tokenizer.unk_token_id, "padding": tokenizer.pad_token_id}
    return {f"tokenizer.ggml.{role}_token_id": token for role, token in roles.items() if token is not None and token < rows}


def end_tokens(tokenizer: Any, stop_ids: frozenset[int], terminator: int | None) -> dict[str, int]:
    """The tokens that end an answer. llama.cpp knows two by id, and others by their text."""
    eos = tokenizer.eos_token_id if tokenizer.eos_token_id in stop_ids else None
    chosen = terminator if terminator is not None else eos
    first = eos if eos is not None else chosen
    made = {}
    if first is not None:
        made["tokenizer.ggml.eos_token_id"] = first
    if chosen is not None:
        made["tokenizer.ggml.eot_token_id"] = chosen
    return made
