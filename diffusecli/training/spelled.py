"""Targets with several spellings: the loss uses the sum of their probabilities. The model may distribute it among them freely.

The loss of a choice c with the paths S_c is - W_c ln sum_{s in S_c} q(s). Its gradient is that of - sum_s w_s ln q(s) with
w_s = W_c q(s) / q(S_c), so the usual backward pass computes it on a trie with these weights.

Example: a choice of weight .5 has two spellings with model probabilities .1 and .3. Its loss is - .5 ln .4 = .458, and the spellings
have weights .125 and .375: d/dq (- .5 ln .4) is - .5 / .4 = - 1.25 for both, as are - .125 / .1 and - .375 / .3.

Axis names: J paths, C choices (see `EncodedPrompt.choices`).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from diffusecli.models.encoding import EncodedPrompt


def loss_of(encoded: EncodedPrompt, path_log_probs: np.ndarray) -> float:
    """- sum_c W_c ln q(S_c) in nats; without spellings - sum_k w_k ln q(k)."""
    if not encoded.choices:
        return encoded.trie.loss(path_log_probs)
    return float(-np.dot(_choice_weights(encoded), _choice_log_probs(encoded, path_log_probs)))


def lowest_loss(encoded: EncodedPrompt) -> float:
    """The entropy of the choices in nats, the lowest possible loss."""
    if not encoded.choices:
        return encoded.trie.entropy
    return -math.fsum(w * math.log(w) for w in _choice_weights(encoded).tolist() if w > 0)


def weighed_by(encoded: EncodedPrompt, path_log_probs: np.ndarray) -> EncodedPrompt:
    """The prompt with path weights w_s = W_c q(s) / q(S_c). The gradient of its plain loss equals that of the loss over spellings."""
    choices = np.array(encoded.choices)
    shares = np.exp(path_log_probs - _choice_log_probs(encoded, path_log_probs)[choices])  # [J]
    return replace(encoded, trie=encoded.trie.reweighted(_choice_weights(encoded)[choices] * shares))


def _choice_weights(encoded: EncodedPrompt) -> np.ndarray:
    """W_c [C]."""
    return np.bincount(encoded.choices, weights=encoded.trie.weights)


def _choice_log_probs(encoded: EncodedPrompt, path_log_probs: np.ndarray) -> np.ndarray:
    """Ln q(S_c) [C], nats."""
    totals = np.full(max(encoded.choices) + 1, -np.inf)
    np.logaddexp.at(totals, np.array(encoded.choices), path_log_probs)
    return totals
