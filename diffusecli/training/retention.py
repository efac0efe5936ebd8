"""Hold the tuned model to the base model on ordinary instructions, and measure how far it drifted.

The base model answers each instruction itself, once; what it thinks of every token of its answer is kept
(the likeliest K tokens and the mass of the rest) and cached on disk. In training KL(base || tuned) per
token over these answers joins the loss; a third of the instructions is only measured.
Knows tensors and token ids; how a prompt becomes ids is `encoding.py`'s business.

What a pass makes of answers is `cross_entropy.py`'s and `loss.py`'s.
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
from diffusecli.training.answers import Answer, summary
from diffusecli.training.loss import Pass
from diffusecli.training.rounds import in_rounds
from diffusecli.training.rows_pass import RowsPass

ANSWER_TOKENS = 32
HELD_TOKENS = 16
"""A step holds to the beginning of an answer: half the tokens, and what is trained shows there first. Drift is of whole answers."""

_ALWAYS = 60
"""Built-in instructions that every training has: two thirds to hold on to, every third to measure. Long trainings hold on to the rest, too."""

_ROUNDS = 3
"""A training is long where each of those would be used more often than that."""

LIKELIEST = 128
_ROWS_AT_ONCE = 20  # while the base model answers
_SCORED_AT_ONCE = 5  # answers whose logits exist together when the base model's are kept


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


def encode_instructions(
    instructions: Sequence[Prompt], chat: Chat, context: int | None, answer_tokens: int = ANSWER_TOKENS
) -> list[EncodedPrompt]:
    """The instructions in tokens; raises `InputError` when one leaves no room for its answer."""
    encoded = [encode_prompt(prompt, chat) for prompt in instructions]
    longest = max(encoded, key=lambda e: len(e.prompt_ids))
    tokens = len(longest.prompt_ids) + answer_tokens
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
    per_step: int = 1
    turns: tuple[tuple[str, str], ...] = ()  # the instructions to hold on to, with the base model's answers as text

    def answers(self, step: int) -> list[Answer]:
        """The answers of a step: each comes once before any comes again, as the seed has it."""
        count = min(self.per_step, len(self.kept))
        return [in_rounds(self.kept, step * count + turn, str(self.seed)) for turn in range(count)]


def prepare(
    base: LoadedModel, settings: Retain, instructions: Sequence[Prompt], *, seed: int, strategy: Pass, notice: Callable[[str], None],
    shared: Callable[[Any], Any] = lambda mine: mine, write: bool = True, steps: int = 0, most_requests: int = 1,
) -> Retention:  # fmt: skip
    """The base model's answers, from the cache or made now; `strategy` is how the model is scored.

    Of several processes all hold to the same: `shared` gives each what the first one has, which alone is to `write` the cache. A training of
    many `steps`, with up to `most_requests` each, holds on to more of the built-in instructions.
    """
    per_step = max(1, most_requests // 2) if settings.answers_per_step == "auto" else settings.answers_per_step
    always = _ALWAYS if settings.prompts == "builtin" else len(instructions)
    asked_of = partial(_answers, base, strategy=strategy, notice=notice, shared=shared, write=write)
    encoded, answers = asked_of(instructions[:always])
    kept, turns = [], []
    for place, (e, answer) in enumerate(zip(encoded, answers, strict=True)):
        if place % 3 != 2:
            kept.append(answer)
            turns.append(_turn(e, answer, base.chat))
    if steps * per_step > _ROUNDS * len(kept) and len(instructions) > always:
        # nothing is measured of these, so the beginning will do; as earlier turns they end early
        encoded, more = asked_of(instructions[always:], tokens=HELD_TOKENS)
        kept += more
        turns += [_turn(e, answer, base.chat) for e, answer in zip(encoded, more, strict=True)]
    return Retention(
        settings.weight, tuple(answer.beginning(HELD_TOKENS) for answer in kept), tuple(answers[2::3]), seed, per_step, tuple(turns)
    )


def _answers(
    base: LoadedModel, instructions: Sequence[Prompt], *, strategy: Pass, notice: Callable[[str], None], shared: Callable[[Any], Any],
    write: bool, tokens: int = ANSWER_TOKENS,
) -> tuple[list[EncodedPrompt], list[Answer]]:  # fmt: skip
    """Instructions in tokens, and what the base model answers to them with up to so many."""
    encoded = encode_instructions(instructions, base.chat, shape_of(base.model.config, 0).context, tokens)
    path = cache_folder() / "retention" / f"{_key(base, encoded, tokens)}.safetensors"
    answers: list[Answer] | None = shared(_read(path) if write else None)
    if answers is None:
        notice(f"asking the base model {len(encoded)} ordinary instructions to hold it to its answers (once, then cached)")
        with _without_adapter(base.model), blamed(base.model, base.name):
            window, longest = counted_window(base.model.config), max(len(e.prompt_ids) for e in encoded) + tokens
            asked = _ask(base, encoded, tokens, strategy if window is None or longest <= window else RowsPass())
        if write:
            _write(path, asked, notice)
        answers = shared(asked)
    return encoded, answers


def _turn(encoded: EncodedPrompt, answer: Answer, chat: Chat) -> tuple[str, str]:
    """What the instruction says, and what the base model answered."""
    spoken = [token for token in answer.answer_ids if token not in encoded.stop_ids]
    return encoded.prompt.question, encoded.text(chat.tokenizer, spoken).strip()


def _ask(base: LoadedModel, encoded: Sequence[EncodedPrompt], tokens: int, strategy: Pass) -> list[Answer]:
    spoken: list[tuple[int, ...]] = []
    use_cache = bool(choose_cache(base.model))
    for start in range(0, len(encoded), _ROWS_AT_ONCE):
        group = encoded[start : start + _ROWS_AT_ONCE]
        stops = frozenset().union(*(e.stop_ids for e in group))
        spoken += generate_rows(
            base.model,
            [e.prompt_ids for e in group],
            stops,
            settings=SamplingSettings(max_new_tokens=tokens),
            seed=start,
            use_cache=use_cache,
        )
    unscored = torch.zeros(0)
    answers = [Answer(e.prompt_ids, ids, unscored, unscored, unscored) for e, ids in zip(encoded, spoken, strict=True)]
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
    """What the answers depend on."""
    made_of = [base.revision, str(base.model.dtype), tokens, LIKELIEST, [e.prompt_ids for e in encoded],
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
