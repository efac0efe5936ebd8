"""The rounding of a 16-bit model's exact figures: what is stated, compared with figures of the same weights in 32 bits."""

import copy
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from diffusecli.models.attention import enable
from diffusecli.models.sampled_tree import sampled_tree
from diffusecli.models.wide_output import widen_output
from diffusecli.training import layout, rounding
from diffusecli.training.loss import score
from diffusecli.training.packed_pass import PackedPass
from diffusecli.training.pass_choice import choose_pass
from diffusecli.training.processes import Processes
from diffusecli.training.questions import Exact, Question
from diffusecli.training.rounding import UNKNOWN, Rounding
from diffusecli.training.rows_pass import RowsPass
from diffusecli.training.scorer import Scorer
from tests.tiny import tiny_llama
from tests.training.test_loss import encoded

LETTERS = [(a, b, 2) for a in range(3, 15) for b in range(3, 15)]


def prompts(count=6, paths=LETTERS, seed=0):
    """Prompts whose target weights are drawn at random."""
    generator, found = np.random.default_rng(seed), []
    for place in range(count):
        weights = generator.dirichlet(np.ones(len(paths))).tolist()
        one = encoded(paths, weights, prompt_ids=(5, 6, 7 + place % 13, place % 23))
        found.append(replace(one, prompt=one.prompt.model_copy(update={"weights": tuple(weights)})))
    return found


def questions(some):
    return [Question(e.prompt, (e,)) for e in some]


def figures(model, some, **options) -> Exact:
    return Scorer(model, choose_pass(model, some[0])[0], None, Processes("cpu"), print).exact(questions(some), **options)


def pair(seed, dtype=torch.bfloat16):
    """A 16-bit model, and the same weights in 32 bits."""
    model = tiny_llama(vocabulary=24, seed=seed).to(dtype).requires_grad_(False)
    wide = copy.deepcopy(model).float()
    widen_output(model)
    return model, wide


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_of_few_targets_the_stated_rounding_is_the_difference_from_32_bits(dtype):
    model, wide = pair(0, dtype)
    some = prompts(paths=LETTERS[:20])
    found, expected = figures(model, some, rounding=True), figures(wide, some)
    for (kl, _), (true, _), limit in zip(found.figures, expected.figures, found.rounding, strict=True):
        assert limit.kl == pytest.approx(abs(kl - true), rel=0.01, abs=1e-5)
        assert limit.kl > 1e-5
    tvds = [(each[0].tvd, own[0].tvd) for each, own in zip(found.wordings, expected.wordings, strict=True)]
    assert all(abs(tvd - true) <= limit.tvd for (tvd, true), limit in zip(tvds, found.rounding, strict=True))


def test_of_many_targets_it_is_a_limit_that_holds():
    """At 95 % confidence some of 60 figures may be beyond it, but not many; and it is not so wide that it says nothing."""
    beyond, widths = 0, []
    for seed in range(10):
        model, wide = pair(seed)
        some = prompts(seed=seed)
        found, expected = figures(model, some, rounding=True), figures(wide, some)
        gaps = [abs(kl - true) for (kl, _), (true, _) in zip(found.figures, expected.figures, strict=True)]
        beyond += sum(gap > limit.kl for gap, limit in zip(gaps, found.rounding, strict=True))
        widths.append(np.mean([limit.kl for limit in found.rounding]) / np.mean(gaps))
    assert beyond <= 6
    assert np.mean(widths) < 5


def test_a_32_bit_model_has_none_and_is_not_scored_again():
    _, wide = pair(0)
    scored = []
    scorer = Scorer(wide, RowsPass(), None, Processes("cpu"), print)
    scorer.score = lambda some, **options: scored.append(some) or Scorer.score(scorer, some, **options)
    found = scorer.exact(questions(prompts(2)), rounding=True)
    assert (found.rounding, found.rounded, len(scored)) == ((Rounding(), Rounding()), {}, 1)


def test_the_example_of_the_module():
    example = encoded([(1, 3), (2, 3)], [0.5, 0.5])
    of_all = rounding._All(example, np.log([0.2, 0.3]))
    unrounded = np.log([0.2, 0.3]) - [0.03, 0.01]
    assert of_all.rounding(unrounded).kl == pytest.approx(0.02)
    moved = 0.2 * (1 - math.exp(-0.03)) + 0.3 * (1 - math.exp(-0.01))
    assert of_all.rounding(unrounded).tvd == pytest.approx(moved)
    of_some = rounding._Drawn(example, np.log([0.2, 0.3]), np.array([0.5, 0.5]), np.array([0.5, 0.5]), 200)
    assert of_some.rounding(unrounded).kl == pytest.approx(0.02 + 0.0195, abs=1e-4)


def test_of_targets_with_several_texts_it_is_that_of_their_sums():
    """Most of a target's probability may be on one of its texts."""
    for seed in range(20):
        model, wide = pair(seed)
        some = [encoded(LETTERS[:12], [1 / 12] * 12, owners=[place // 3 for place in range(12)], prompt_ids=(5, 6, 7, seed))]
        found, expected = figures(model, some, rounding=True), figures(wide, some)
        (limit,), ((own,),), ((true,),) = found.rounding, found.wordings, expected.wordings
        assert limit.kl == pytest.approx(abs(own.kl - true.kl), rel=0.01, abs=1e-6)
        assert abs(own.tvd - true.tvd) <= limit.tvd * 1.001


def test_drawn_texts_have_the_share_of_their_probability_in_their_target():
    """400 targets with a likely and an unlikely text, which rounding moves in opposite ways."""
    example = encoded([(a, b) for a in range(400) for b in (1, 2)], [1 / 800] * 800, owners=[place // 2 for place in range(800)])
    log_probs = np.log(np.tile([0.9, 0.01], 400) / 400)
    chosen = rounding._chosen(example, log_probs, 128)
    likely = np.isclose(chosen.log_probs, math.log(0.9 / 400))
    limit = chosen.rounding(chosen.log_probs - np.where(likely, 0.05, -0.05))
    true = -math.log((0.9 * math.exp(-0.05) + 0.01 * math.exp(0.05)) / 0.91)
    assert true <= limit.kl < 1.1 * true
    assert 0.91 * (1 - math.exp(-true)) <= limit.tvd < 1.2 * 0.91 * true


@pytest.mark.parametrize("sampled", [False, True])
def test_drawn_targets_are_not_every_nth(sampled):
    """Of 1280 numbers every tenth has another rounding, as if by its last digit."""
    example = encoded([(a,) for a in range(1280)], [1 / 1280] * 1280)
    if sampled:
        example = replace(example, trie=sampled_tree(example.trie, np.arange(1280)))
    log_probs = np.full(1280, -math.log(1280))
    chosen = rounding._chosen(example, log_probs, 128)
    digits = np.array([chosen.encoded.trie.path(place)[0] % 10 for place in range(len(chosen.log_probs))])
    assert len(set(digits.tolist())) == 10
    limits = [chosen.rounding(chosen.log_probs - 0.05 * (digits == digit)).kl for digit in range(10)]
    assert min(limits) >= 0.005


def test_of_many_prompts_some_are_scored_again_and_the_others_get_the_largest():
    model, wide = pair(3)
    some = prompts(40, LETTERS[:9])
    found, expected = figures(model, some, rounding=True), figures(wide, some)
    assert len(found.rounding) == 40
    own = {place: limit.kl for place, limit in enumerate(found.rounding) if place % 3 == 0}  # 14 of 40
    assert {limit.kl for place, limit in enumerate(found.rounding) if place not in own} == {max(own.values())}
    for place, limit in own.items():
        assert limit == pytest.approx(abs(found.figures[place][0] - expected.figures[place][0]), rel=0.01, abs=1e-5)


def test_a_rounding_that_cannot_be_measured_is_unknown(monkeypatch):
    model, _ = pair(0)

    def fail(*_):
        raise RuntimeError("not implemented for this kind of layer\nat some place")

    monkeypatch.setattr("diffusecli.training.scorer.measured", fail)
    told = []
    found = Scorer(model, RowsPass(), None, Processes("cpu"), told.append).exact(questions(prompts(1)), rounding=True)
    assert found.rounding == (UNKNOWN,)
    assert found.rounded == {found.prompts[0].alias: None}
    assert told == ["warning: the rounding of the 16-bit model cannot be measured (not implemented for this kind of layer)"]


class Paired(Processes):
    """One of two processes, each in a thread of this one."""

    def __init__(self, rank, words, barrier):
        super().__init__("cpu")
        self.rank, self.count, self._words, self._barrier = rank, 2, words, barrier

    def everyones(self, value):
        self._words[self.rank] = value
        self._barrier.wait(60)
        found = list(self._words)
        self._barrier.wait(60)
        return found


class Failing(RowsPass):
    """Rows that one process cannot compute."""

    def run(self, *_, **options):
        raise TypeError("an operation without a float32 form")


def test_an_error_of_one_process_makes_the_rounding_unknown_in_both():
    words, barrier, told = [None, None], threading.Barrier(2), []
    some = prompts(2, LETTERS[:9])
    groups = [[(e, np.full(9, -2.0))] for e in some]

    def process(rank):
        (model, _), processes = pair(0), Paired(rank, words, barrier)
        scorer = Scorer(model, (RowsPass, Failing)[rank](), None, processes, told.append)
        return scorer.rounding(groups), processes.everyones(f"next {rank}")

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(process, range(2)))
    assert found == [([UNKNOWN, UNKNOWN], ["next 0", "next 1"])] * 2
    assert told == ["warning: the rounding of the 16-bit model cannot be measured (an operation without a float32 form)"] * 2


def test_slices_of_logits_give_a_16_bit_model_the_same_loss_and_gradient(monkeypatch):
    monkeypatch.setattr(layout, "SLICE_ROWS", 3)
    (example,) = prompts(1, LETTERS[:30])
    found = []
    for sliced in (True, False):
        model, _ = pair(0)
        torch.manual_seed(1)
        model = get_peft_model(model, LoraConfig(r=3, target_modules="all-linear", init_lora_weights=False))
        enable(model)
        scores = score(model, example, PackedPass(None, tree=True, sliced_head=sliced), backward=True)
        found.append((scores.log_probs, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])))
    (own, own_gradient), (whole, gradient) = found
    np.testing.assert_allclose(own, whole, atol=1e-5)
    assert float((own_gradient - gradient).norm() / gradient.norm()) < 0.01
