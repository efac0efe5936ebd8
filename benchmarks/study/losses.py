"""`python -m benchmarks.study.losses WAY SEED [--seconds S]`: train for a given time with one loss, and print its curve as JSON.

Everything but the loss is the same: prompts of each step, adapter, optimiser, schedule by time, packed pass. So a request's tokens are fed once
per step in every way, however many targets are sampled. Sampled targets are stratified draws, as for the product's large trees.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy import stats

from benchmarks.study.losses_plan import MEASURED, MEASURING, SECONDS, TRAINING, WAYS, Way
from benchmarks.study.tasks import Distribution, file_name, prompt_of
from diffusecli.evaluation.ordered import values_of
from diffusecli.models.encoding import EncodedPrompt, encode_prompt
from diffusecli.models.fused import fuse
from diffusecli.models.loading import LoadedModel, load_model
from diffusecli.models.sampled_tree import draw_paths, sampled_tree
from diffusecli.models.source import model_source
from diffusecli.models.trie import TokenTrie
from diffusecli.prompts.config import AlgConfig, Config
from diffusecli.prompts.config_files import read_config
from diffusecli.prompts.prompt import Prompt
from diffusecli.training.inputs import Inputs
from diffusecli.training.job import Prepared, prepare_prompts
from diffusecli.training.loss import target_log_probs
from diffusecli.training.processes import Processes
from diffusecli.training.questions import figures_of
from diffusecli.training.schedule import learning_rate, rate_share
from diffusecli.training.scorer import Scorer
from diffusecli.training.start import adapt

CONFIG = "configs/mixture.yaml"
"""Adapter, optimiser and prompts per step."""

Clock = Callable[[], float]
CLOCKS: tuple[Clock, Clock] = (time.process_time, time.perf_counter)
"""CPU seconds, which end the training, and wall-clock seconds."""
_PARTS = 1000  # of the schedule

Line = dict[str, Any]


def part_of(trie: TokenTrie, way: Way, rng: np.random.Generator) -> TokenTrie:
    """The tree that a step trains: all of it, or sampled paths with soft targets or without."""
    if not way.draws:
        return trie
    paths = draw_paths(trie, rng.random(way.draws))
    return sampled_tree(trie, paths) if way.soft else samples(trie, paths)


def samples(trie: TokenTrie, paths: np.ndarray) -> TokenTrie:
    """Sampled paths [m] with equal weights, whose sum is that of the tree: its loss is their plain cross-entropy.

    >>> trie = TokenTrie.build([(1, 0), (2, 0), (3, 0)], [0.5, 0.25, 0.25])
    >>> found = samples(trie, np.array([2, 0, 0, 0]))
    >>> [found.path(place) for place in range(2)], found.weights.tolist()
    ([(1, 0), (3, 0)], [0.75, 0.25])
    """
    drawn, counts = np.unique(paths, return_counts=True)
    return TokenTrie.build([trie.path(int(path)) for path in drawn], trie.weights.sum() * counts / len(paths))


def train(
    way: Way, config: Config, base: LoadedModel, prompts: Sequence[Prompt], measured: Mapping[str, Sequence[Prompt]], seconds: float,
    clocks: tuple[Clock, Clock] = CLOCKS,
) -> Iterator[Line]:  # fmt: skip
    """Train for so many seconds of the first clock. Yields the figures of every set at the start, at log-spaced times and at the end."""
    settings, prepared = config.alg_config, _prepared(config, base, prompts)
    sets = {name: [encode_prompt(prompt, base.chat) for prompt in some] for name, some in measured.items()}
    optimiser = _optimiser(settings, prepared, base)
    rng = np.random.default_rng(config.seed)
    full, spent, step, tokens = optimiser.param_groups[0]["lr"], np.zeros(2), 0, 0
    found = figures_by_set(prepared.scorer, sets)
    for until in (0.0, *np.geomspace(seconds / 16, seconds, MEASURED).tolist()):
        measured_at = step
        while spent[0] < until:
            started = np.array([clock() for clock in clocks])
            share = rate_share(settings, int(_PARTS * spent[0] / seconds), _PARTS)
            optimiser.param_groups[0]["lr"] = full * share
            tokens += _step(way, prepared, optimiser, step, rng)
            spent, step = spent + np.array([clock() for clock in clocks]) - started, step + 1
        if step > measured_at:
            found = figures_by_set(prepared.scorer, sets)
        costs = {"cpu_seconds": float(spent[0]), "wall_seconds": float(spent[1]), "steps": step, "tokens": tokens}
        yield from ({"set": name, **costs, **figures} for name, figures in found.items())


def _prepared(config: Config, base: LoadedModel, prompts: Sequence[Prompt]) -> Prepared:
    """The product's own preparation, without retention."""
    return prepare_prompts(
        base, model_source(config), Inputs(list(prompts), [], []), config.alg_config, retain=False, vary=False, seed=config.seed,
        size=None, processes=Processes("cpu"), notice=_notice,
    )  # fmt: skip


def _optimiser(settings: AlgConfig, prepared: Prepared, base: LoadedModel) -> torch.optim.Optimizer:
    """As `diffuse train` has it."""
    rate = learning_rate(settings, base.model.config.get_text_config().hidden_size)
    return torch.optim.AdamW(
        prepared.weights.vectors, lr=rate, betas=(0.9, 0.99), eps=1e-5, weight_decay=settings.weight_decay, fused=True
    )


def _step(way: Way, prepared: Prepared, optimiser: torch.optim.Optimizer, step: int, rng: np.random.Generator) -> int:
    """One optimiser step. Returns the tokens fed."""
    visits, _ = prepared.visits.step(step)
    encoded = [replace(visit.encoded, trie=part_of(visit.encoded.trie, way, rng)) for visit in visits]
    fed = prepared.scorer.score(encoded, backward=True).tokens_fed
    torch.nn.utils.clip_grad_norm_(prepared.weights.vectors, 1.0)
    optimiser.step()
    prepared.weights.clear()
    return fed


def figures_by_set(scorer: Scorer, sets: Mapping[str, Sequence[EncodedPrompt]]) -> dict[str, dict[str, float | None]]:
    """Means of exact figures over the prompts of each set. Wasserstein-1 is a mean over those with numbers, None without any."""
    every = [encoded for some in sets.values() for encoded in some]
    scores = iter(scorer.log_probs(every))
    found: dict[str, dict[str, float | None]] = {}
    for name, some in sets.items():
        pairs = [(encoded, next(scores)) for encoded in some]
        exact = [figures_of(encoded, log_probs) for encoded, log_probs in pairs]
        distances = [wasserstein(encoded.prompt, target_log_probs(encoded, log_probs)) for encoded, log_probs in pairs]
        numeric = [distance for distance in distances if distance is not None]
        found[name] = {key: float(np.mean([getattr(one, key) for one in exact])) for key in ("kl", "on_target", "tvd")}
        found[name]["wasserstein"] = float(np.mean(numeric)) if numeric else None
    return found


def wasserstein(prompt: Prompt, log_q: np.ndarray) -> float | None:
    """Wasserstein-1 distance of the valid answers from the target, as a share of the range; None unless targets are numbers.

    >>> prompt = Prompt(request="Roll.", targets=("{1}", "{2}", "{5}"))
    >>> round(wasserstein(prompt, np.log([0.2, 0.2, 0.1])), 6)  # .4, .4, .2 of valid answers: .2 / 3 more at 1 and 2, .4 / 3 fewer at 5
    0.116667
    """
    if (found := values_of(prompt.targets)) is None:
        return None
    values = np.array(found[0])
    q = np.exp(log_q - log_q.max())
    return float(stats.wasserstein_distance(values, values, q, prompt.probabilities) / np.ptp(values))


def _notice(text: str) -> None:
    print(text, file=sys.stderr)


def _prompts(distributions: Sequence[Distribution]) -> list[Prompt]:
    return [prompt_of(one).model_copy(update={"alias": file_name(one)}) for one in distributions]


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=list(WAYS))
    parser.add_argument("seed", type=int)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="CPU seconds of training")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(asked.seed)  # for the adapter's initial weights
    config = read_config(CONFIG, [f"seed={asked.seed}", "retain=off", "device=cpu", "precision=fp32"])
    base = load_model(model_source(config), _notice)
    adapt(base, config.lora, None, _notice)
    fuse(base.model)
    measured = {name: _prompts(some) for name, some in MEASURING.items()}
    curve = list(train(WAYS[asked.way], config, base, _prompts(TRAINING), measured, asked.seconds))
    print(json.dumps({"way": asked.way, "seed": asked.seed, "seconds": asked.seconds, "curve": curve}, indent=1))


if __name__ == "__main__":
    main()
