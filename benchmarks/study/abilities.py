"""`python -m benchmarks.study.abilities RUN|--untuned [--many]`: what a model knows and how well it predicts ordinary text, as one JSON object.

Three sets that no prompt of the library has anything to do with: questions with four answers (`data/choices.jsonl`), arithmetic with four
answers (made here), and paragraphs of ordinary English (`data/passages.txt`). `--many` asks the thousands of questions of `rules.py` instead of
the first two sets, and reads 240 paragraphs of books whose copyright has ended (`data/books.txt`, 60 of each): Jane Austen, *Persuasion* (1817); William
Morris, *News from Nowhere* (1890); Hezekiah Butterworth, *The Log School-House on the Columbia* (1890); Edward MacDowell, *Critical and Historical
Essays* (1912). They are a random sample of the paragraphs of 60 to 160 words, from the files of Project Gutenberg. Nothing is sampled from the model. A question is asked in a chat, and
each of its four answers has an exact log-probability as what the assistant says: the sum over its tokens, as Brown and others ("Language
Models are Few-Shot Learners", 2020) and the accuracies of most evaluation suites have it. The likeliest counts as the model's answer. The
sum, and not the mean per token, makes the four normalised probabilities those of a model that must say one of the four; answers
are of like length in letters; in tokens 59 of the 120 questions have answers of different length, and the right one is .17 tokens shorter on average.
That raises accuracies a little and leaves comparisons of models alone.

`compare` sets two such objects side by side, item by item.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from diffusecli.evaluation.exact import scorer_of
from diffusecli.models.adapters import recorded_base
from diffusecli.models.architecture import shape_of
from diffusecli.models.encoding import EncodedPrompt, encode_prompt
from diffusecli.models.loading import LoadedModel, load_model
from diffusecli.models.lora import load_adapter
from diffusecli.models.source import model_source
from diffusecli.models.trie import TokenTrie
from diffusecli.prompts.config import Config
from diffusecli.prompts.prompt import Prompt
from diffusecli.runs.finding import config_of
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.errors import DiffuseError
from diffusecli.system.notices import Notice
from diffusecli.training.inputs import require_context
from diffusecli.training.loss import score, target_log_probs
from diffusecli.training.rows_pass import RowsPass

DATA = Path(__file__).parent / "data"
BUILTIN = "smollm2-135m-instruct"
ARITHMETIC_SEED = 0
EACH = 40  # additions, subtractions, multiplications
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Question:
    """A question with four answers, one of which is right."""

    question: str
    options: tuple[str, ...]
    answer: int  # the place of the right one
    kind: str

    def __post_init__(self) -> None:
        if len(set(self.options)) != 4 or not 0 <= self.answer < 4:
            raise ValueError(f"{self.question!r} needs four different options and an answer from 0 to 3")


def read_choices() -> list[Question]:
    """The questions of `data/choices.jsonl`."""
    found = map(json.loads, (DATA / "choices.jsonl").read_text(encoding="utf-8").splitlines())
    return [Question(**{**fields, "options": tuple(fields["options"])}) for fields in found]


def read_passages(*, many: bool = False) -> list[str]:
    """The paragraphs of `data/passages.txt`, or of the books: a line each."""
    return (DATA / ("books.txt" if many else "passages.txt")).read_text(encoding="utf-8").splitlines()


def arithmetic(seed: int = ARITHMETIC_SEED) -> list[Question]:
    """Additions and subtractions up to 30 and multiplications up to 10 times 10, 40 of each, all different.

    The three wrong answers have as many digits as the right one, so that none begins another, and are near it. All are written as
    equations, the way in which a chat model answers: of bare numbers the untuned built-in model finds no more right than chance does.
    """
    dice = np.random.default_rng(seed)
    terms = [(a, b) for a in range(2, 31) for b in range(2, 31)]
    factors = [(a, b) for a in range(2, 11) for b in range(2, 11)]
    return [
        *_drawn(dice, "addition", {f"{a} + {b}": (a + b, (1, 2, 10)) for a, b in terms}),
        *_drawn(dice, "subtraction", {f"{a} - {b}": (a - b, (1, 2, 10)) for a, b in terms if a > b}),
        *_drawn(dice, "multiplication", {f"{a} * {b}": (a * b, (1, a, b)) for a, b in factors}),
    ]


def _drawn(dice: np.random.Generator, kind: str, results: Mapping[str, tuple[int, Sequence[int]]]) -> list[Question]:
    """40 of these terms, the right answer as often in each place; `results` tells what each makes and how far off answers may be."""
    places = dice.permutation(np.arange(EACH) % 4)
    found = []
    for term, place in zip(dice.choice(list(results), EACH, replace=False), places, strict=True):
        result, steps = results[term]
        wrong = dice.permutation(near(result, steps))[:3].tolist()
        options = [*wrong[:place], result, *wrong[place:]]
        found.append(Question(f"What is {term}?", tuple(f"{term} = {option}" for option in options), int(place), kind))
    return found


def near(result: int, steps: Sequence[int]) -> list[int]:
    """Numbers of as many digits, so many steps above and below; the nearest others where these are fewer than three.

    >>> near(9, (1, 2, 10))
    [7, 8, 6]
    >>> near(24, (1, 4, 6))
    [18, 20, 23, 25, 28, 30]
    """

    def alike(others: set[int]) -> list[int]:
        return sorted(n for n in others if n > 0 and n != result and len(str(n)) == len(str(result)))

    near = alike({result + sign * step for step in steps for sign in (-1, 1)})
    more = sorted(set(alike(set(range(result - 9, result + 10)))) - set(near), key=lambda n: (abs(n - result), n))
    return near + more[: max(0, 3 - len(near))]


def answer_log_probs(base: LoadedModel, questions: Sequence[Question], config: Config, notice: Notice) -> np.ndarray:
    """[Q, 4]: exact log-probabilities, in nats, of each option as the beginning of the assistant's answer.

    Every packed pass has many questions. The four options of a question share it, and questions share how they begin. Raises `InputError` where the tokenizer cannot tell two options apart, or a question is too long for the model.
    """
    prompts = [
        Prompt(request=q.question, targets=q.options, eos=False, alias=f"question {number}")
        for number, q in enumerate(questions, 1)
    ]
    encoded = [encode_prompt(prompt, base.chat) for prompt in prompts]
    require_context(encoded, shape_of(base.model.config, 0).context)
    found = scorer_of(base, encoded, model_source(config), config.alg_config, notice).score(encoded).log_probs
    return np.array([target_log_probs(e, paths) for e, paths in zip(encoded, found, strict=True)])


def passage_losses(base: LoadedModel, passages: Sequence[str]) -> list[dict[str, float]]:
    """Of each passage how many tokens are predicted, and their summed negative log-likelihood in nats.

    The passage stands alone, without a chat; its first token is given, and each of the others is predicted from all before it.
    """
    found = []
    for number, passage in enumerate(passages, 1):
        first, *rest = base.tokenizer(passage)["input_ids"]
        prompt = Prompt(request=passage, targets=(passage,), eos=False, alias=f"passage {number}")
        encoded = EncodedPrompt(prompt, (first,), TokenTrie.build([rest], [1.0]), (0,), frozenset())
        require_context([encoded], shape_of(base.model.config, 0).context)
        (log_prob,) = score(base.model, encoded, RowsPass(1)).log_probs
        found.append({"tokens": len(rest), "nats": -float(log_prob)})
    return found


def answered(questions: Sequence[Question], log_probs: np.ndarray) -> list[dict[str, Any]]:
    """Each question with what the model would answer, and how likely the right option is when one of the four must be said."""
    normalised = log_probs - np.logaddexp.reduce(log_probs, axis=1, keepdims=True)
    return [
        {
            "question": q.question, "kind": q.kind, "chosen": int(own.argmax()), "right": int(own.argmax()) == q.answer,
            "log_prob": float(share[q.answer]), "log_probs": own.tolist(),
        }
        for q, own, share in zip(questions, log_probs, normalised, strict=True)
    ]  # fmt: skip


def accuracy_figures(name: str, items: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """How many were answered, the share of right answers with its 95 % interval (Wilson 1927), and the mean normalised log-probability.

    The latter is in nats, ln 1/4 = -1.386 for a model that has no idea.
    """
    right = sum(item["right"] for item in items)
    interval = stats.binomtest(right, len(items)).proportion_ci(CONFIDENCE, method="wilson")
    return {
        f"{name}_n": len(items), f"{name}_accuracy": right / len(items),
        f"{name}_low": float(interval.low), f"{name}_high": float(interval.high),
        f"{name}_log_prob": float(np.mean([item["log_prob"] for item in items])),
    }  # fmt: skip


def passage_figures(items: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """How many passages and predicted tokens, and the perplexity: exp of the mean negative log-likelihood per token."""
    tokens = sum(item["tokens"] for item in items)
    return {
        "passages_n": len(items),
        "passages_tokens": tokens,
        "perplexity": math.exp(math.fsum(item["nats"] for item in items) / tokens),
    }


def question_sets(*, many: bool = False) -> dict[str, list[Question]]:
    """The sets of questions, by name."""
    from benchmarks.study.rules import by_rule

    return {"rules": by_rule()} if many else {"choices": read_choices(), "arithmetic": arithmetic()}


def measure(base: LoadedModel, config: Config, notice: Notice, *, many: bool = False) -> dict[str, Any]:
    """All figures of the model as it is now, and what they were made from: what `compare` needs."""
    sets = question_sets(many=many)
    started, number = time.perf_counter(), sum(map(len, sets.values()))
    items = {name: answered(questions, answer_log_probs(base, questions, config, notice)) for name, questions in sets.items()}
    notice(f"{number} questions, {60 * number / (time.perf_counter() - started):.0f} per minute")
    passages = read_passages(many=many)
    losses = passage_losses(base, passages)
    figures = [accuracy_figures(name, found) for name, found in items.items()] + [passage_figures(losses)]
    asked = json.dumps([*(asdict(q) for questions in sets.values() for q in questions), *passages])
    return {
        **{name: value for part in figures for name, value in part.items()},
        "asked": {"sha256": hashlib.sha256(asked.encode()).hexdigest(), "model": base.name, "revision": base.revision},
        "items": {**items, "passages": losses},
    }  # fmt: skip


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """What changed between two results of `measure`, item by item.

    Sets of questions: McNemar's exact test (the binomial law of the questions that only one of the two got right), and the mean change
    of the right answers' log-probability in nats. Passages: the mean change of nats per token over passages, and exp of it, the
    factor on perplexity. Means have 95 % intervals by the paired t-test. Raises `ValueError` where not the same was asked of the same base model.
    """
    if before["asked"] != after["asked"]:
        raise ValueError("other questions or another base model: measure both again with the same")
    pairs = {name: (items, after["items"][name]) for name, items in before["items"].items()}
    per_token = _mean_change(*([item["nats"] / item["tokens"] for item in items] for items in pairs.pop("passages")))
    return {
        **{name: _answers_changed(*both) for name, both in pairs.items()},
        "passages": {
            **{f"nats_per_token_{name}": value for name, value in per_token.items()},
            **{f"perplexity_{name.replace('change', 'factor')}": math.exp(value) for name, value in per_token.items()},
        },
    }  # fmt: skip


def _answers_changed(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    lost = sum(a["right"] and not b["right"] for a, b in zip(before, after, strict=True))
    gained = sum(b["right"] and not a["right"] for a, b in zip(before, after, strict=True))
    change = _mean_change([item["log_prob"] for item in before], [item["log_prob"] for item in after])
    return {
        "n": len(before), "lost": lost, "gained": gained, "accuracy_change": (gained - lost) / len(before),
        "p_value": float(stats.binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0,
        **{f"log_prob_{name}": value for name, value in change.items()},
    }  # fmt: skip


def _mean_change(before: Sequence[float], after: Sequence[float]) -> dict[str, float]:
    """The mean difference of pairs and its 95 % interval by Student's t; of width zero where all differences are the same."""
    differences = np.array(after) - np.array(before)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(differences) - 1) * stats.sem(differences))
    mean = float(differences.mean())
    return {"change": mean, "change_low": mean - half, "change_high": mean + half}


def load(run: RunDir | None, *, untuned: bool, notice: Notice) -> tuple[LoadedModel, Config]:
    """A run's model with its adapter, or its base model; the built-in model where there is no run.

    Raises `DiffuseError` when there is no such run, adapter or model, or the adapter was trained on other weights.
    """
    config = config_of(run) if run else Config.model_validate({"model": BUILTIN, "output_dir": "."})
    base = load_model(model_source(config), notice)
    if run and not untuned:
        load_adapter(base, run.path, recorded=recorded_base(run))
    return base, config


def main() -> None:
    """Print the figures of one model; notices go to stderr."""
    parser = argparse.ArgumentParser(description="Measure what a model knows and how well it predicts ordinary text.")
    parser.add_argument("run", nargs="?", type=Path, help="a run directory: its adapter on its base model")
    parser.add_argument("--untuned", action="store_true", help="without the adapter; the built-in model where no run is named")
    parser.add_argument("--many", action="store_true", help="ask the thousands of questions that are made by rule")
    asked = parser.parse_args()
    if asked.run is None and not asked.untuned:
        parser.error("name a run directory, or say --untuned")

    def notice(text: str) -> None:
        print(text, file=sys.stderr)

    try:
        base, config = load(RunDir(asked.run) if asked.run else None, untuned=asked.untuned, notice=notice)
        found = measure(base, config, notice, many=asked.many)
    except DiffuseError as error:
        sys.exit(str(error))
    print(json.dumps(found, indent=1, allow_nan=False))


if __name__ == "__main__":
    main()
