"""Keep the tuned model close to the base model on ordinary instructions, and measure its drift.

The base model answers each instruction once. The probabilities of its K likeliest tokens at every position, and
the mass of the rest, are cached on disk. In training, KL(base || tuned) per token over these answers is added to
the loss. A third of the instructions is held out to measure drift.
It uses tensors and token ids; `encoding.py` converts prompts to ids.

The loss of answers is in `cross_entropy.py` and `loss.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from diffusecli.files.cache import cache_folder, private_cache
from diffusecli.files.writing import atomic_write
from diffusecli.models.architecture import counted_window, shape_of
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
from diffusecli.system.waits import waiting_for
from diffusecli.training.answers import Answer, summary
from diffusecli.training.loss import Pass
from diffusecli.training.rounds import in_rounds
from diffusecli.training.rows_pass import RowsPass

ANSWER_TOKENS = 32
HELD_TOKENS = 16
"""A step uses the first half of an answer, because changes show there first. Drift uses whole answers."""

_ALWAYS = 60
"""Built-in instructions for every training: two thirds for the loss, every third for drift. Long trainings add the rest to the loss."""

_ROUNDS = 3
"""A training is long if each of these would be used more often than this."""

LIKELIEST = 128
_ROWS_AT_ONCE = 20  # rows in a batch while the base model answers
_SCORED_AT_ONCE = 5  # answers scored together by the base model


INSTRUCTION = "instruction "
"""How the names of built-in instructions begin."""


def read_instructions(settings: Retain) -> list[Prompt]:
    """The built-in instructions, or the requests of prompt files (targets are ignored).

    Raises `InputError` when there are too few to hold out a third.
    """
    if settings.prompts == "builtin":
        text = resources.files("diffusecli.training").joinpath("instructions.txt").read_text(encoding="utf-8")
        return [Prompt(request=line, targets=(), alias=f"{INSTRUCTION}{n}") for n, line in enumerate(text.splitlines(), 1)]
    found = read_prompts(settings.prompts)
    if len(found) < LEAST_INSTRUCTIONS:
        raise InputError(
            f"retain.prompts: has {many(len(found), 'instruction')}. At least {LEAST_INSTRUCTIONS} are needed, because every third is held out"
        )
    return found


def encode_instructions(
    instructions: Sequence[Prompt], chat: Chat, context: int | None, answer_tokens: int = ANSWER_TOKENS
) -> list[EncodedPrompt]:
    """The instructions in tokens. Raises `InputError` when one leaves no room for its answer."""
    encoded = [encode_prompt(prompt, chat) for prompt in instructions]
    longest = max(encoded, key=lambda e: len(e.prompt_ids))
    tokens = len(longest.prompt_ids) + answer_tokens
    if context is not None and tokens > context:
        raise InputError(
            f"{longest.alias}: the instruction with its answer has {tokens} tokens, but the model's context is {context}. Shorten the instruction"
        )
    return encoded


@dataclass(frozen=True)
class Retention:
    """Answers for the loss, and held-out answers for drift."""

    weight: float
    kept: tuple[Answer, ...]
    held_out: tuple[Answer, ...]
    seed: int
    per_step: int = 1
    turns: tuple[tuple[str, str], ...] = ()  # trained instructions with the base model's answers, as text

    def answers(self, step: int) -> list[Answer]:
        """The answers of a step. Each is used once before any is used again, in an order fixed by the seed."""
        count = min(self.per_step, len(self.kept))
        return [in_rounds(self.kept, step * count + turn, str(self.seed)) for turn in range(count)]


def prepare(
    base: LoadedModel, settings: Retain, instructions: Sequence[Prompt], *, seed: int, strategy: Pass, notice: Callable[[str], None],
    shared: Callable[[Any], Any] = lambda mine: mine, write: bool = True, steps: int = 0, most_requests: int = 1,
) -> Retention:  # fmt: skip
    """The base model's answers, from the cache or generated now; `strategy` is the pass that scores the model.

    All processes use the same answers: `shared` returns those of the first process, and only it should `write` the cache. A training of
    many `steps`, with up to `most_requests` each, uses more of the built-in instructions.
    """
    per_step = max(1, most_requests // 2) if settings.answers_per_step == "auto" else settings.answers_per_step
    always = _ALWAYS if settings.prompts == "builtin" else len(instructions)
    answers_to = partial(_answers, base, strategy=strategy, notice=notice, shared=shared, write=write)
    encoded, answers = answers_to(instructions[:always])
    kept, turns = [], []
    for place, (e, answer) in enumerate(zip(encoded, answers, strict=True)):
        if place % 3 != 2:
            kept.append(answer)
            turns.append(_turn(e, answer, base.chat))
    if steps * per_step > _ROUNDS * len(kept) and len(instructions) > always:
        # not used for drift, so the first tokens suffice; as earlier turns they end early
        encoded, more = answers_to(instructions[always:], tokens=HELD_TOKENS)
        kept += more
        turns += [_turn(e, answer, base.chat) for e, answer in zip(encoded, more, strict=True)]
    return Retention(
        settings.weight, tuple(answer.beginning(HELD_TOKENS) for answer in kept), tuple(answers[2::3]), seed, per_step, tuple(turns)
    )


def _answers(
    base: LoadedModel, instructions: Sequence[Prompt], *, strategy: Pass, notice: Callable[[str], None], shared: Callable[[Any], Any],
    write: bool, tokens: int = ANSWER_TOKENS,
) -> tuple[list[EncodedPrompt], list[Answer]]:  # fmt: skip
    """Instructions in tokens, and the base model's answers of up to `tokens` tokens."""
    encoded = encode_instructions(instructions, base.chat, shape_of(base.model.config, 0).context, tokens)
    path = cache_folder() / "retention" / f"{_key(base, encoded, tokens)}.safetensors"
    answers: list[Answer] | None = shared(_read(path) if write else None)
    if answers is None:
        notice(f"generating the base model's answers to {len(encoded)} ordinary instructions for retention (once, then cached)")
        with _without_adapter(base.model), blamed(base.model, base.name), waiting_for("generating the answers") as advance:
            window, longest = counted_window(base.model.config), max(len(e.prompt_ids) for e in encoded) + tokens
            generated = _generate(base, encoded, tokens, strategy if window is None or longest <= window else RowsPass(), advance)
        if write:
            _write(path, generated, notice)
        answers = shared(generated)
    return encoded, answers


def _turn(encoded: EncodedPrompt, answer: Answer, chat: Chat) -> tuple[str, str]:
    """The instruction and the base model's answer, as text."""
    answered = [token for token in answer.answer_ids if token not in encoded.stop_ids]
    return encoded.prompt.question, encoded.text(chat.tokenizer, answered).strip()


def _generate(
    base: LoadedModel, encoded: Sequence[EncodedPrompt], tokens: int, strategy: Pass, advance: Callable[[int, int], None]
) -> list[Answer]:
    generated: list[tuple[int, ...]] = []
    use_cache = bool(choose_cache(base.model))
    for part, start in enumerate(range(0, len(encoded), _ROWS_AT_ONCE)):
        advance(part, -(-len(encoded) // _ROWS_AT_ONCE))
        group = encoded[start : start + _ROWS_AT_ONCE]
        stops = frozenset().union(*(e.stop_ids for e in group))
        generated += generate_rows(
            base.model,
            [e.prompt_ids for e in group],
            stops,
            settings=SamplingSettings(max_new_tokens=tokens),
            seed=start,
            use_cache=use_cache,
        )
    unscored = torch.zeros(0)
    answers = [Answer(e.prompt_ids, ids, unscored, unscored, unscored) for e, ids in zip(encoded, generated, strict=True)]
    scored: list[Answer] = []
    with torch.no_grad():
        for start in range(0, len(answers), _SCORED_AT_ONCE):
            group_of_answers = answers[start : start + _SCORED_AT_ONCE]
            logits = strategy.answer_logits(base.model, group_of_answers).float()
            require_numbers(logits)
            likeliest = logits.topk(min(LIKELIEST, logits.shape[-1] - 1), dim=-1).indices
            log_probs, rest = summary(logits, likeliest)
            lengths = [len(a.answer_ids) for a in group_of_answers]
            columns = [column.cpu().split(lengths) for column in (likeliest.int(), log_probs, rest)]
            scored += [Answer(a.prompt_ids, a.answer_ids, *parts) for a, *parts in zip(group_of_answers, *columns, strict=True)]
    return scored


def _without_adapter(model: Any) -> Any:
    return model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()


def _key(base: LoadedModel, encoded: Sequence[EncodedPrompt], tokens: int) -> str:
    """The cache key: a hash of everything that the answers depend on."""
    parts = [base.revision, str(base.model.dtype), tokens, LIKELIEST, [e.prompt_ids for e in encoded],
               [sorted(e.stop_ids) for e in encoded], str(getattr(base.model.config, "quantization_config", None))]  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _read(path: Path) -> list[Answer] | None:
    """Cached answers; None if there are none or they cannot be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        kept = load_file(path)
        lengths, prompt_lengths = kept["lengths"].tolist(), kept["prompt_lengths"].tolist()
        ids = zip(kept["prompt_ids"].split(prompt_lengths), kept["answer_ids"].split(lengths), strict=True)
        columns = [kept[name].split(lengths) for name in ("likeliest", "log_probs", "log_rest")]
    except (OSError, SafetensorError, KeyError, RuntimeError, ValueError):
        return None
    return [Answer(tuple(p.tolist()), tuple(a.tolist()), *rest) for (p, a), *rest in zip(ids, *columns, strict=True)]


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
        notice(f"{error}. The base model's answers are not cached and will be generated again")
