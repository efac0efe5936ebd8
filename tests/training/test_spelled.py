"""Targets in several spellings: the gradient of their summed probability in every pass, and a training that leaves the spelling free."""

import numpy as np
import pytest
import torch

from diffusecli.models.architecture import trainable
from diffusecli.models.attention import enable
from diffusecli.models.encoding import EncodedPrompt
from diffusecli.models.trie import TokenTrie
from diffusecli.prompts.prompt import Prompt
from diffusecli.training import layout
from diffusecli.training.loss import target_log_probs
from diffusecli.training.packed_pass import PackedPass
from diffusecli.training.processes import Processes
from diffusecli.training.retention import Retention
from diffusecli.training.rows_pass import RowsPass
from diffusecli.training.scorer import Scorer
from diffusecli.training.spelled import loss_of, lowest_loss, weighed_by
from diffusecli.training.state_pass import StatePass
from tests.tiny import tiny_llama
from tests.training.test_forest_pass import answer
from tests.training.test_loss import assert_same_gradient, encoded

MODEL = tiny_llama(vocabulary=12).double()
PATHS = [(1, 2, 0), (1, 3, 4, 0), (2, 0), (3, 0), (3, 5, 0), (4, 0)]
CHOICES = (0, 0, 1, 2, 2, 2)
WEIGHTS = [0.25, 0.25, 0.2, 0.1, 0.1, 0.1]  # .5, .2 and .3, shared out evenly
PASSES = {
    "packed, a dense mask": PackedPass(),
    "packed, attention by tree": PackedPass(None, tree=True),
    "packed, in parts": PackedPass(8, tree=True),
    "packed, logits by slices": PackedPass(None, tree=True, sliced_head=True),
    "packed, logits by slices, in parts": PackedPass(8, tree=True, sliced_head=True),
    "rows": RowsPass(),
    "rows, two at a time": RowsPass(2),
    "states": StatePass(),
    "states, in parts": StatePass(8),
}


def spelled(scale=1.0, prompt_ids=(5, 6, 7, 8)):
    """Three targets in two, one and three spellings."""
    prompt = Prompt(request="x", targets=(("a", "b"), "c", ("d", "e", "f")), weights=(5, 2, 3), alias="x.json")
    trie = TokenTrie.build(PATHS, WEIGHTS).scaled(scale)
    return EncodedPrompt(prompt, prompt_ids, trie, CHOICES, frozenset({0}), choices=CHOICES)


def log_q(prompt_ids, path):
    """Of a path, from a plain call of the model."""
    scores = MODEL(torch.tensor([[*prompt_ids, *path]])).logits[0].log_softmax(-1)
    return sum(scores[len(prompt_ids) - 1 + place, token] for place, token in enumerate(path))


def by_formula(example, scale=1.0):
    """- sum_k p_k ln sum_s q(s), written down."""
    found = torch.stack([log_q(example.prompt_ids, path) for path in PATHS])
    groups = ((0.5, [0, 1]), (0.2, [2]), (0.3, [3, 4, 5]))
    return -scale * sum(p * torch.logsumexp(found[places], 0) for p, places in groups)


def gradient(make_loss):
    MODEL.zero_grad()
    value = make_loss()
    return value, torch.cat([weight.grad.flatten() for weight in trainable(MODEL)])


def autograd(*losses):
    def backward():
        sum(losses_now := [loss() for loss in losses]).backward()
        return [float(loss.detach()) for loss in losses_now]

    return gradient(backward)


def scorer(way, processes=None):
    return Scorer(MODEL, way, None, processes or Processes("cpu"), print)


@pytest.mark.parametrize("way", PASSES.values(), ids=PASSES)
def test_the_gradient_is_that_of_the_formula(way):
    assert enable(MODEL)
    example = spelled()
    (expected,), wanted = autograd(lambda: by_formula(example))
    scores, found = gradient(lambda: scorer(way).score([example], backward=True))
    assert loss_of(example, scores.log_probs[0]) == pytest.approx(expected, rel=1e-6)
    assert float(wanted.norm()) > 0.1
    assert_same_gradient(found, wanted)


@pytest.mark.parametrize("size", [None, 8], ids=["whole", "in parts"])
@pytest.mark.parametrize("rows_at_once", [2, 192])
def test_logits_by_slices_give_the_gradient_of_the_formula(monkeypatch, size, rows_at_once):
    """Beside a plain prompt and an answer to hold on to; the output layer, and with it the embedding, is not trained."""
    monkeypatch.setattr(layout, "SLICE_ROWS", rows_at_once)
    assert enable(MODEL)
    plain, held = encoded(PATHS[:3], [0.25, 0.125, 0.125], prompt_ids=(5, 6)), [answer((1, 2), (3, 4, 5), 1)]
    retention = Retention(0.7, (), (), 0)
    MODEL.lm_head.weight.requires_grad_(False)
    try:
        in_rows, sliced = (
            gradient(
                lambda way=way: Scorer(MODEL, way, retention, Processes("cpu"), print).score(
                    [plain, spelled()], held, backward=True
                )
            )
            for way in (RowsPass(), PackedPass(size, tree=True, sliced_head=True))
        )
    finally:
        MODEL.lm_head.weight.requires_grad_(True)
    assert_same_gradient(sliced[1], in_rows[1])
    np.testing.assert_allclose(sliced[0].log_probs[1], in_rows[0].log_probs[1], rtol=1e-6)


class Two(Processes):
    """Cuts the work as two processes do, and does all of it."""

    def __init__(self):
        super().__init__("cpu")
        self.count = 2

    def run(self, pieces, between=lambda: None, expected=()):
        assert len(pieces) > 1
        return [piece.work() for piece in pieces]

    def sum_gradients(self, gradients):
        """There is one gradient."""


@pytest.mark.parametrize("processes", [None, Two()], ids=["one process", "work for two"])
@pytest.mark.parametrize("way", [PackedPass(None, tree=True), RowsPass(2), StatePass()], ids=["packed", "rows", "states"])
def test_prompts_with_spellings_and_without_share_a_step_by_their_weights(way, processes):
    """A visit scales its tree: a quarter of one loss, half of the other, and three quarters of the same tree after another prompt."""
    assert enable(MODEL)
    first, plain, second = spelled(0.25), encoded(PATHS[:3], [0.25, 0.125, 0.125]), spelled(0.75, (5, 9))
    plain_loss = lambda: -sum(w * log_q(plain.prompt_ids, p) for w, p in zip([0.25, 0.125, 0.125], PATHS[:3], strict=True))  # noqa: E731
    losses, wanted = autograd(lambda: by_formula(first, 0.25), plain_loss, lambda: by_formula(second, 0.75))
    scores, found = gradient(lambda: scorer(way, processes).score([first, plain, second], backward=True))
    parts = [loss_of(e, log_probs) for e, log_probs in zip([first, plain, second], scores.log_probs, strict=True)]
    assert parts == pytest.approx(losses, rel=1e-6)
    assert_same_gradient(found, wanted)


def test_answers_to_hold_on_to_count_once():
    held = [answer((1, 2), (3, 4, 5), 1)]
    with_answers = Scorer(MODEL, PackedPass(), Retention(0.7, (), (), 0), Processes("cpu"), print)
    _, of_prompt = gradient(lambda: with_answers.score([spelled()], backward=True))
    _, of_answers = gradient(lambda: with_answers.score([], held, backward=True))
    scores, together = gradient(lambda: with_answers.score([spelled()], held, backward=True))
    assert len(scores.divergences) == 1
    assert float(of_answers.norm()) > 0.1
    assert_same_gradient(together, of_prompt + of_answers)


def test_shares_by_hand():
    """Spellings of .1 and .3 share the weight .5 as one to three; a target alone keeps its .2; .05, .05 and .1 share .3."""
    weighed = weighed_by(spelled(), np.log([0.1, 0.3, 0.2, 0.05, 0.05, 0.1]))
    assert weighed.trie.weights == pytest.approx([0.125, 0.375, 0.2, 0.075, 0.075, 0.15])
    assert weighed.trie.masses == pytest.approx(TokenTrie.build(PATHS, weighed.trie.weights).masses)


def test_figures_go_by_outcome():
    log_probs = np.log([0.1, 0.3, 0.2, 0.05, 0.05, 0.1])
    np.testing.assert_allclose(np.exp(target_log_probs(spelled(), log_probs)), [0.4, 0.2, 0.2])
    assert loss_of(spelled(), log_probs) == pytest.approx(-0.5 * np.log(0.4) - 0.2 * np.log(0.2) - 0.3 * np.log(0.2))
    assert loss_of(spelled(0.5), log_probs) == pytest.approx(0.5 * loss_of(spelled(), log_probs))
    assert lowest_loss(spelled()) == pytest.approx(spelled().prompt.entropy)


def test_only_spellings_that_a_pass_cannot_weigh_itself_are_fed_twice():
    plain = encoded(PATHS, WEIGHTS)
    for way, times in ((PackedPass(sliced_head=True), 1), (PackedPass(), 2), (PackedPass(8, sliced_head=True), 2), (RowsPass(), 2)):
        once = scorer(way).score([plain]).tokens_fed
        assert scorer(way).score([plain], backward=True).tokens_fed == once
        assert scorer(way).score([spelled()], backward=True).tokens_fed == times * once


def test_training_reaches_the_outcomes_and_leaves_the_spelling_free():
    """The outcomes come to 5 : 2 : 3. Trained to even shares, every spelling of a target would be as likely as the others."""
    example, shares = spelled(), {}
    for name, trained in {"free": example, "even": encoded(PATHS, WEIGHTS)}.items():
        model = tiny_llama(vocabulary=12, seed=3)
        optimiser, at = torch.optim.Adam(trainable(model), lr=0.01), Scorer(model, PackedPass(), None, Processes("cpu"), print)
        for _ in range(150):
            optimiser.zero_grad()
            at.score([trained], backward=True)
            optimiser.step()
        (log_probs,) = at.log_probs([example])
        q = np.exp(target_log_probs(example, log_probs))
        np.testing.assert_allclose(q, [0.5, 0.2, 0.3], atol=0.02)
        shares[name] = np.exp(log_probs[0]) / q[0]
    assert shares["even"] == pytest.approx(0.5, abs=0.05)
    assert abs(shares["free"] - 0.5) > 0.2


@pytest.mark.parametrize("backward_only", [False, True], ids=["in both passes", "in the backward pass"])
def test_parts_that_do_not_fit_become_smaller_and_give_the_same_gradient(monkeypatch, backward_only):
    run, sizes = PackedPass.run, []

    def short(self, *arguments, loss=None):
        batch = arguments[-1]
        if batch.tokens > 8 and (loss is not None or not backward_only):
            raise torch.OutOfMemoryError
        sizes.append(batch.tokens)
        return run(self, *arguments, loss=loss)

    _, wanted = autograd(lambda: by_formula(spelled()))
    monkeypatch.setattr(PackedPass, "run", short)
    told = []
    at = Scorer(MODEL, PackedPass(), None, Processes("cpu"), told.append)
    _, found = gradient(lambda: at.score([spelled()], backward=True))
    assert len(told) == 1
    assert max(sizes) > 8 or not backward_only
    assert_same_gradient(found, wanted)
