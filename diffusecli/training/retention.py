"""Hold the tuned model to the base model on ordinary instructions, and measure how far it drifted.

The base model answers each instruction itself, once; what it thinks of every token of its answer is kept
(the likeliest K tokens and the mass of the rest) and cached on disk. In training KL(base || tuned) per
token over these answers joins the loss; a third of the instructions is only measured.
Knows tensors and token ids; how a prompt becomes ids is `encoding.py`'s business.

Axis names: T tokens of an answer, K likeliest tokens, V vocabulary.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusecli.files.cache import cache_folder, private_cache
from diffusecli.files.writing import atomic_write
from diffusecli.models.architecture import attention_windows, shape_of
from diffusecli.models.attention import additive_mask
from diffusecli.models.chat import Chat
from diffusecli.models.encoding import EncodedPrompt, encode_prompt
from diffusecli.models.loading import LoadedModel
from diffusecli.models.overflow import blamed, require_numbers
from diffusecli.prompts.config import LEAST_INSTRUCTIONS, Retain
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.prompt_files import read_prompts
from diffusecli.sampling.batched import choose_cache, generate_rows
from diffusecli.sampling.settings import SamplingSettings
from diffusecli.system.errors import InputError, MachineError, many

ANSWER_TOKENS = 32
LIKELIEST = 128
_ROWS_AT_ONCE = 20  # while the base model answers
_PACKED_ANSWERS = 5  # while drift is measured


@dataclass(frozen=True)
class Answer:
    """What the base model said to one instruction, and what it thought while saying it (natural logarithms)."""

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]  # T, terminator included if it came
    likeliest: Tensor  # [T, K] token ids
    log_probs: Tensor  # [T, K] of the likeliest
    log_rest: Tensor  # [T] of all other tokens together

    @property
    def tokens(self) -> int:
        """How many tokens a pass over it is fed."""
        return len(self.prompt_ids) + len(self.answer_ids) - 1


def read_instructions(settings: Retain) -> list[Prompt]:
    """The built-in instructions, or the requests of the prompt files that are named; targets are ignored.

    Raises `InputError` when there are too few to hold a third out.
    """
    if settings.prompts == "builtin":
        text = resources.files("diffusecli.training").joinpath("instructions.txt").read_text(encoding="utf-8")
        return [Prompt(request=line, targets=(), alias=f"instruction {n}") for n, line in enumerate(text.splitlines(), 1)]
    found = read_prompts(settings.prompts)
    if len(found) < LEAST_INSTRUCTIONS:
        raise InputError(
            f"retain.prompts: {many(len(found), 'instruction')}, at least {LEAST_INSTRUCTIONS} are needed (every third is only measured)"
        )
    return found


def encode_instructions(instructions: Sequence[Prompt], chat: Chat, context: int | None) -> list[EncodedPrompt]:
    """The instructions in tokens; raises `InputError` when one leaves no room for its answer."""
    encoded = [encode_prompt(prompt, chat) for prompt in instructions]
    longest = max(encoded, key=lambda e: len(e.prompt_ids))
    tokens = len(longest.prompt_ids) + ANSWER_TOKENS
    if context is not None and tokens > context:
        raise InputError(
            f"{longest.alias}: the instruction with its answer is {tokens} tokens, the model takes {context}; shorten it"
        )
    return encoded


@dataclass(frozen=True)
class Retention:
    """The answers to hold on to and those to measure by."""

    weight: float
    kept: tuple[Answer, ...]
    held_out: tuple[Answer, ...]
    seed: int
    packed: bool  # whether several answers may be measured in one sequence

    def answer(self, turn: int) -> Answer:
        """The answer for the `turn`-th use: each comes once before any comes again, in an order that the seed fixes."""
        round_, place = divmod(turn, len(self.kept))
        return random.Random(f"{self.seed} {round_}").sample(self.kept, len(self.kept))[place]

    def run(self, model: Any, answer: Answer, *, scale: float = 1.0) -> float:
        """Add `weight` times KL(base || tuned) per token to the gradient; returns the KL in nats per token."""
        kl = answer_kl(model, [answer])
        (self.weight * scale * kl.mean()).backward()
        return float(kl.detach().mean())

    def drift(self, model: Any) -> float:
        """Mean KL(base || tuned) over all tokens of the held-out answers, nats per token."""
        at_once = _PACKED_ANSWERS if self.packed else 1
        groups = [self.held_out[start : start + at_once] for start in range(0, len(self.held_out), at_once)]
        with torch.no_grad():
            return float(torch.cat([answer_kl(model, group) for group in groups]).mean())


def prepare(
    base: LoadedModel, settings: Retain, instructions: Sequence[Prompt], *, seed: int, packed: bool, notice: Callable[[str], None],
    shared: Callable[[Any], Any] = lambda mine: mine, write: bool = True,
) -> Retention:  # fmt: skip
    """The base model's answers, from the cache or made now.

    Of several processes all hold to the same: `shared` gives each what the first one has, which alone is to `write` the cache.
    """
    encoded = encode_instructions(instructions, base.chat, shape_of(base.model.config, 0).context)
    tokens = max(len(e.prompt_ids) for e in encoded) + ANSWER_TOKENS
    window = attention_windows(base.model.config).get("sliding_window", tokens)
    packed = packed and tokens <= window  # a mask of our own would lift the window
    path = cache_folder() / "retention" / f"{_key(base, encoded)}.safetensors"
    answers: list[Answer] | None = shared(_read(path) if write else None)
    if answers is None:
        notice(f"asking the base model {len(encoded)} ordinary instructions to hold it to its answers (once, then cached)")
        with _without_adapter(base.model), blamed(base.model, base.name):
            asked = _ask(base, encoded, packed)
        if write:
            _write(path, asked, notice)
        answers = shared(asked)
    held_out = answers[2::3]
    return Retention(settings.weight, tuple(a for i, a in enumerate(answers) if i % 3 != 2), tuple(held_out), seed, packed)


def answer_kl(model: Any, answers: Sequence[Answer]) -> Tensor:
    """KL(base || tuned) at each token of the answers, one after the other, in nats: [sum of T].

    All but the likeliest tokens count as one, which can only make the sum smaller (data processing inequality).
    """
    logits = _answer_logits(model, answers)
    likeliest = torch.cat([a.likeliest for a in answers]).to(logits.device).long()
    base = torch.cat([a.log_probs for a in answers]).to(logits.device)
    base_rest = torch.cat([a.log_rest for a in answers]).to(logits.device)
    log_q, rest = _summary(logits, likeliest)
    return (base.exp() * (base - log_q)).sum(-1) + base_rest.exp() * (base_rest - rest)


def _summary(logits: Tensor, likeliest: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities [T, K] of the given tokens and [T] of all others together, from logits [T, V]."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    normaliser = logits.logsumexp(-1)
    rest = logits.scatter(1, likeliest, float("-inf")).logsumexp(-1) - normaliser
    return logits.gather(1, likeliest) - normaliser[:, None], rest


def _answer_logits(model: Any, answers: Sequence[Answer]) -> Tensor:
    """Logits [sum of T, V] of the answers' tokens, several answers packed into one sequence of which none sees another."""
    ids: list[int] = []
    positions: list[int] = []
    scored: list[int] = []
    for answer in answers:
        start = len(ids)
        ids += [*answer.prompt_ids, *answer.answer_ids[:-1]]
        positions += range(len(ids) - start)
        scored += range(start + len(answer.prompt_ids) - 1, len(ids))
    where: dict[str, Any] = {"device": model.device}
    inputs = {"input_ids": torch.tensor([ids], **where), "logits_to_keep": torch.tensor(scored, **where), "use_cache": False}
    if len(answers) > 1:
        owner = torch.tensor([n for n, a in enumerate(answers) for _ in range(a.tokens)], **where)
        allowed = (owner[:, None] == owner).tril()
        inputs |= {"attention_mask": additive_mask(allowed, model.dtype), "position_ids": torch.tensor([positions], **where)}
    return model(**inputs).logits[0]


def _ask(base: LoadedModel, encoded: Sequence[EncodedPrompt], packed: bool) -> list[Answer]:
    spoken: list[tuple[int, ...]] = []
    use_cache = bool(choose_cache(base.model))
    for start in range(0, len(encoded), _ROWS_AT_ONCE):
        group = encoded[start : start + _ROWS_AT_ONCE]
        stops = frozenset().union(*(e.stop_ids for e in group))
        spoken += generate_rows(
            base.model,
            [e.prompt_ids for e in group],
            stops,
            settings=SamplingSettings(max_new_tokens=ANSWER_TOKENS),
            seed=start,
            use_cache=use_cache,
        )
    unscored = torch.zeros(0)
    answers = [Answer(e.prompt_ids, ids, unscored, unscored, unscored) for e, ids in zip(encoded, spoken, strict=True)]
    at_once = _PACKED_ANSWERS if packed else 1
    scored: list[Answer] = []
    with torch.no_grad():
        for start in range(0, len(answers), at_once):
            group_of_answers = answers[start : start + at_once]
            logits = _answer_logits(base.model, group_of_answers).float()
            require_numbers(logits)
            likeliest = logits.topk(min(LIKELIEST, logits.shape[-1] - 1), dim=-1).indices
            log_probs, rest = _summary(logits, likeliest)
            lengths = [len(a.answer_ids) for a in group_of_answers]
            columns = [column.cpu().split(lengths) for column in (likeliest.int(), log_probs, rest)]
            scored += [Answer(a.prompt_ids, a.answer_ids, *parts) for a, *parts in zip(group_of_answers, *columns, strict=True)]
    return scored


def _without_adapter(model: Any) -> Any:
    return model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()


def _key(base: LoadedModel, encoded: Sequence[EncodedPrompt]) -> str:
    """What the answers depend on."""
    made_of = [base.revision, str(base.model.dtype), ANSWER_TOKENS, LIKELIEST, [e.prompt_ids for e in encoded],
               [sorted(e.stop_ids) for e in encoded], str(getattr(base.model.config, "quantization_config", None))]  # fmt: skip
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:24]


def _read(path: Path) -> list[Answer] | None:
    """Cached answers; None when there are none or they cannot be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        kept = load_file(path)
        lengths, prompt_lengths = kept["lengths"].tolist(), kept["prompt_lengths"].tolist()
        ids = zip(kept["prompt_ids"].split(prompt_lengths), kept["answer_ids"].split(lengths), strict=True)
        thoughts = [kept[name].split(lengths) for name in ("likeliest", "log_probs", "log_rest")]
    except (OSError, SafetensorError, KeyError, RuntimeError, ValueError):
        return None
    return [Answer(tuple(p.tolist()), tuple(a.tolist()), *rest) for (p, a), *rest in zip(ids, *thoughts, strict=True)]


def _write(path: Path, answers: Sequence[Answer], notice: Callable[[str], None]) -> None:
    from safetensors.torch import save

    kept = {name: torch.cat([getattr(a, name) for a in answers]) for name in ("likeliest", "log_probs", "log_rest")}
    kept |= {name: torch.tensor([i for a in answers for i in getattr(a, name)]) for name in ("prompt_ids", "answer_ids")}
    kept["lengths"] = torch.tensor([len(a.answer_ids) for a in answers])
    kept["prompt_lengths"] = torch.tensor([len(a.prompt_ids) for a in answers])
    try:
        private_cache(path.parent.name)
        with atomic_write(path, "wb") as file:
            file.write(save(kept))
    except (OSError, MachineError) as error:
        notice(f"{error}; the answers of the base model are not cached and will be asked for again")
