"""Limits of exact figures from the most likely first tokens: numbers worked out by hand, and no model that breaks a limit."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusecli.evaluation.bounds import bounded_figures, lowest_kl
from diffusecli.evaluation.metrics import exact_figures
from diffusecli.prompts.divergence import exact_kl
from diffusecli.prompts.prompt import Prompt
from diffusecli.sampling.first_tokens import FirstTokens


def prompt(*targets, **more):
    return Prompt(request="r", targets=targets, **more)


def test_the_example_of_the_module():
    found = bounded_figures(prompt("a", "b"), [FirstTokens({b"x": 0.7, b"a": 0.2})])
    assert found.q_high == pytest.approx((0.2, 0.1))
    assert found.kl_low == pytest.approx(0.5 * math.log(0.5 / 0.2) + 0.5 * math.log(0.5 / 0.1))
    assert (found.tvd_low, found.on_target_high) == pytest.approx((0.7, 0.3))
    assert (found.listed, found.begun) == (2, 1)


def test_limits_are_shown_so_that_they_still_hold():
    """KL >= .5 ln(.5/.22) + .5 ln(.5/.0777) = 1.34137, TVD >= .28 + .4223 = .7023, on target <= .2977."""
    found = bounded_figures(prompt("a", "b"), [FirstTokens({b"x": 0.7023, b"a": 0.22})])
    assert (found.kl_low, found.tvd_low, found.on_target_high) == pytest.approx((1.3413667, 0.7023, 0.2977))
    assert (found.shown.kl_low, found.shown.tvd_low, found.shown.on_target_high) == (1.3413, 0.702, 0.298)


def test_targets_with_the_same_first_token_share_it():
    """1 and 10 begin with 1 (.6), and 10 may be a token of its own: at most .05. Together they have at most .65 of .75."""
    found = bounded_figures(prompt("1", "10", "2", weights=[0.5, 0.25, 0.25]), [FirstTokens({b"1": 0.6, b"2": 0.35})])
    assert found.q_high == pytest.approx((0.6, 0.65, 0.35))
    assert found.kl_low == pytest.approx(0.75 * math.log(0.75 / 0.65) + 0.25 * math.log(0.25 / 0.35))
    assert found.tvd_low == pytest.approx(0.1)
    assert found.on_target_high == pytest.approx(1)


def test_tokens_that_are_not_listed_have_at_most_the_least_listed_probability_each():
    """Of the beginnings p, pe, pea, pear only p is listed (.3); the other three have at most .02 each, and .1 together."""
    first = FirstTokens({b"x": 0.58, b"p": 0.3, b"q": 0.02})
    assert bounded_figures(prompt("pear"), [first]).q_high == pytest.approx((0.36,))
    assert bounded_figures(prompt("pears and more"), [first]).q_high == pytest.approx((0.4,)), "the rest is .1"


def test_an_empty_answer_has_no_text_and_a_target_without_eos_may_go_on():
    first = FirstTokens({b"abc": 0.5, b"x": 0.2}, textless=0.1)
    assert bounded_figures(prompt("", "ab"), [first]).q_high == pytest.approx((0.3, 0.2)), "textless .1 and rest .2; a, ab: .1 each"
    assert bounded_figures(prompt("ab", eos=False), [first]).q_high == pytest.approx((0.8,)), "abc goes on after ab"


def test_limits_of_several_wordings_are_means():
    some = [FirstTokens({b"a": 0.5, b"b": 0.5}), FirstTokens({b"a": 0.9, b"b": 0.1})]
    found = bounded_figures(prompt("a", "b"), some)
    assert found.kl_low == pytest.approx(0.5 * (0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)))
    assert found.tvd_low == pytest.approx(0.2)


@given(
    st.lists(st.floats(0.01, 1), min_size=2, max_size=8), st.lists(st.floats(0.01, 1), min_size=8, max_size=8), st.floats(0.1, 1)
)
def test_no_distribution_within_the_limits_has_a_lower_kl(weights, most, share):
    p, highest = np.array(weights) / sum(weights), np.array(most[: len(weights)])
    together = min(1.0, share * float(highest.sum()))
    found = lowest_kl(p, highest, together)
    rng = np.random.default_rng(0)
    for _ in range(50):
        q = highest * rng.random(len(p))
        q *= min(1.0, together / q.sum())
        assert exact_kl(p, np.log(q)) >= found - 1e-9


@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_no_model_breaks_the_limits_that_its_first_tokens_give(seed, most):
    """Answers of up to three letters a and b; a token is one or two letters. The limits are from the `most` likeliest first tokens."""
    rng = np.random.default_rng(seed)
    tokens = ["a", "b", "aa", "ab", "ba", "bb", "c"]
    first = rng.dirichlet(np.ones(len(tokens)) * 0.5)
    q = {}
    for token, p in zip(tokens, first, strict=True):
        following = rng.dirichlet(np.ones(len(tokens) + 1))  # the last one ends the answer
        q[token] = q.get(token, 0) + p * following[-1]
        for more, r in zip(tokens, following[:-1], strict=True):
            q[token + more] = q.get(token + more, 0) + p * r  # then it ends
    targets = [str(text) for text in rng.permutation(["a", "ab", "aab", "b", "bba", "c", "ca"])[:4]]
    asked = prompt(*targets, weights=list(rng.dirichlet(np.ones(4))))
    order = np.argsort(-first)[:most]
    found = bounded_figures(asked, [FirstTokens({tokens[place].encode(): float(first[place]) for place in order})])
    exact = exact_figures(asked, np.log([q.get(text, 1e-300) for text in targets]), 10)
    assert all(own <= high + 1e-9 for own, high in zip(exact.q, found.q_high, strict=True))
    assert exact.on_target <= found.on_target_high + 1e-9
    assert exact.tvd >= found.tvd_low - 1e-9
    assert exact.kl >= found.kl_low - 1e-9
