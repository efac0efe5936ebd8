"""Models and targets for `gpu`, made by rule, so that nothing has to be fetched: random weights in real shapes, tokens without a tokenizer."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import torch

from diffusecli.models.encoding import EncodedPrompt
from diffusecli.models.fused import fuse
from diffusecli.models.loading import LoadedModel
from diffusecli.models.lora import attach_lora
from diffusecli.models.trie import TokenTrie
from diffusecli.models.wide_output import widen_output
from diffusecli.prompts.config import LoraSettings
from diffusecli.prompts.prompt import Prompt
from diffusecli.training.visits import drawn_tree

PROMPT_TOKENS = 40
END, DIGITS, PIECES = 2, range(10, 20), range(20, 220)
"""The ids of the terminator, of the ten digits, and of the pieces of names."""
DRAWN = 64  # targets of a sampled step, as in training


@dataclass(frozen=True)
class Shape:
    """The shape of a Llama."""

    hidden: int
    inner: int
    layers: int
    heads: int
    key_heads: int
    vocabulary: int
    tied: bool


SHAPES = {
    "135M": Shape(576, 1536, 30, 9, 3, 49_152, True),
    "1.5B": Shape(1536, 8960, 28, 12, 2, 151_936, True),
    "7B": Shape(4096, 11_008, 32, 32, 32, 32_000, False),
}
TINY = {"tiny": Shape(64, 96, 2, 4, 2, 256, True)}


def random_model(shape: Shape, device: torch.device) -> LoadedModel:
    """A bf16 Llama of random weights, frozen, without an adapter."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.inner, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.key_heads, max_position_embeddings=4096, tie_word_embeddings=shape.tied,
        bos_token_id=None, eos_token_id=END, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)  # so that no wide copy exists
    try:
        with torch.device(device):
            model: Any = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    model.eval().requires_grad_(False)
    widen_output(model)
    return LoadedModel("random weights", model, None, "")


def with_adapter(base: LoadedModel) -> LoadedModel:
    """The model with a new rank-4 adapter on all linear layers, as training would make it."""
    attach_lora(base, LoraSettings(r=4, alpha=8))
    fuse(base.model)
    return base


def targets() -> dict[str, EncodedPrompt]:
    """100 numbers (a token per digit), 200 names (one to four pieces), and 20 000 numbers of which a step draws 64."""
    many = _encoded("20 000 numbers, 64 drawn", [_number(n) for n in range(1, 20_001)])
    return {
        "100 numbers": _encoded("100 numbers", [_number(n) for n in range(1, 101)]),
        "200 names": _encoded("200 names", _names(200)),
        many.alias: replace(many, trie=drawn_tree(many, DRAWN, None)),
    }


def _encoded(name: str, paths: list[tuple[int, ...]]) -> EncodedPrompt:
    prompt = Prompt(request=name, targets=tuple(map(str, range(len(paths)))), alias=name)
    ids = tuple(random.Random(name).choices(PIECES, k=PROMPT_TOKENS))  # noqa: S311 (tokens, not secrets)
    return EncodedPrompt(
        prompt, ids, TokenTrie.build(paths, [1 / len(paths)] * len(paths)), (*range(len(paths)),), frozenset({END})
    )


def _number(n: int) -> tuple[int, ...]:
    return (*(DIGITS[int(digit)] for digit in str(n)), END)


def _names(count: int) -> list[tuple[int, ...]]:
    """Different names. Lengths are those of first names in common tokenizers: 20, 45, 28 and 7 % have one to four tokens."""
    draw, found = random.Random(0), dict[tuple[int, ...], None]()  # noqa: S311 (tokens, not secrets)
    while len(found) < count:
        length = draw.choices((1, 2, 3, 4), (20, 45, 28, 7))[0]
        found[*draw.choices(PIECES, k=length), END] = None
    return list(found)
