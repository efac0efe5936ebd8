"""Where a pass meets an edge: devices without float64, windows that count places, little memory, tokens of no mass, other devices."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers

from diffusecli.models.block_attention import Blocks
from diffusecli.models.forest import Forest, Strand
from diffusecli.models.source import ModelSource
from diffusecli.prompts.config import AlgConfig
from diffusecli.training import layout
from diffusecli.training.answers import Held, divergence, summary
from diffusecli.training.cross_entropy import _of_answers
from diffusecli.training.flat_weights import FlatWeights
from diffusecli.training.layout import pack
from diffusecli.training.packed_pass import PackedPass
from diffusecli.training.pass_choice import choose_strategy
from diffusecli.training.processes import Processes
from diffusecli.training.retention import Retention
from diffusecli.training.rows_pass import RowsPass
from diffusecli.training.scorer import Scorer
from diffusecli.training.state_pass import StatePass
from tests.models.architectures import build
from tests.tiny import tiny_llama
from tests.training.test_forest_pass import answer
from tests.training.test_loss import encoded

PATHS = [(1, 2, 3), (1, 4, 3), (2, 3, 3)]


class _NoFloat64(torch.overrides.TorchFunctionMode):
    """The meta device refuses float64, as Apple's MPS does."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor) and found.device.type == "meta" and found.dtype == torch.float64:
            raise TypeError("no float64 on this device")
        return found


def test_nothing_of_float64_reaches_a_device_that_has_none(monkeypatch):
    monkeypatch.setattr(layout, "sum_dtype", lambda _: torch.float32)
    example = encoded(PATHS, [0.5, 0.25, 0.25])
    given = answer((1, 2), (3, 4), 0)
    kept = replace(given, log_probs=given.log_probs.float(), log_rest=given.log_rest.float())
    with _NoFloat64():
        packed = pack([(example, PackedPass().parts(example)[0])], [kept], torch.device("meta"))
    assert packed.edge_masses.dtype == torch.float32
    logits = torch.randn(2, 12)
    assert {found.dtype for found in _of_answers(logits, Held.of([kept], logits.device), 1.0, True)} == {torch.float32}


@pytest.mark.parametrize("gap", [1, 60, 95, 150])
def test_tokens_that_the_tuned_model_gives_no_mass_leave_a_finite_divergence(gap):
    base = torch.randn(3, 200, generator=torch.Generator().manual_seed(0)) * 2
    likeliest = base.topk(128, -1).indices
    held = Held(likeliest, *summary(base, likeliest), torch.full((3,), 1 / 3))
    tuned = (base - gap * torch.ones_like(base).scatter(1, likeliest, 0.0)).requires_grad_()
    expected = divergence(held, *summary(tuned, likeliest))
    (held.weights * expected).sum().backward()
    found, gradient = _of_answers(tuned.detach().clone(), held, 1.0, True)
    torch.testing.assert_close(found, expected.detach())
    torch.testing.assert_close(gradient, tuned.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_that_only_fill_up_a_block_leave_finite_gradients(dtype):
    nothing, size = np.zeros(0, dtype=int), 65  # two blocks of 33 tokens
    blocks = Blocks.of(Forest.of([Strand(tuple(range(size)), nothing, nothing, nothing)]))
    query, key, value = torch.randn(3, 1, 2, size, 8, generator=torch.Generator().manual_seed(0)).unbind()
    query[..., 0], key[..., 0] = 12, -8  # all scores are far below 0: beside the mask of fp16 they overflow
    inputs = [one.to(dtype).requires_grad_() for one in (query, key, value)]
    blocks.attend(None, *inputs, 8**-0.5, None).float().square().sum().backward()
    assert all(one.grad.isfinite().all() for one in inputs)


def test_no_dense_pass_is_longer_than_a_window_that_counts_places():
    torch.manual_seed(0)
    model = transformers.GPTNeoForCausalLM(transformers.GPTNeoConfig(
        vocab_size=24, hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]], window_size=16,
        max_position_embeddings=128, initializer_range=0.5, bos_token_id=1, eos_token_id=2,
    )).eval()  # fmt: skip
    base = SimpleNamespace(model=model, name="x", device=model.device, parameters=10_000)
    prompts = [encoded(PATHS, [0.5, 0.25, 0.25], prompt_ids=(9, 5, 6, 7, last)) for last in range(3, 20)]
    way, _ = choose_strategy(base, prompts, ModelSource("x", device="cpu"), AlgConfig(), Processes("cpu"))
    assert isinstance(way, PackedPass)
    assert not way.tree
    found, expected = (Scorer(model, one, None, Processes("cpu"), print).log_probs(prompts) for one in (way, RowsPass(8)))
    np.testing.assert_allclose(np.concatenate(found), np.concatenate(expected), atol=1e-4)
    answers = [answer((9, 5, 6, 7, last), (3, 4, 5, 6), 0) for last in range(3, 8)]
    with torch.no_grad():
        torch.testing.assert_close(
            way.answer_logits(model, answers), RowsPass(1).answer_logits(model, answers), atol=1e-3, rtol=1e-4
        )


def test_too_little_memory_for_the_answers_alone_means_smaller_parts(monkeypatch):
    whole, told = PackedPass.run, []

    def run(self, model, encoded, answers, batch, **options):
        if batch.tokens > 12:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, model, encoded, answers, batch, **options)

    model, answers = tiny_llama(vocabulary=12), [answer((1, 2, last), (3, 4, 5), 0) for last in range(6)]
    expected = Scorer(model, PackedPass(), Retention(1.0, (), (), 0), Processes("cpu"), print).drift(answers)
    monkeypatch.setattr(PackedPass, "run", run)
    assert Scorer(model, PackedPass(), None, Processes("cpu"), told.append).drift(answers) == pytest.approx(expected, rel=1e-5)
    assert told


def test_a_model_with_states_that_is_spread_over_processes_is_fed_rows():
    model, example = build("Jamba"), encoded(PATHS, [0.5, 0.25, 0.25])
    base = SimpleNamespace(model=model, name="x", device=model.device, parameters=10_000)
    processes = Processes("cpu")
    ways = []
    for processes.sharded in (False, True):
        ways.append(type(choose_strategy(base, [example], ModelSource("x", device="cpu"), AlgConfig(), processes)[0]))
    assert ways == [StatePass, RowsPass]


def test_moments_belong_to_weights_wherever_they_lie():
    """Two vectors (two number formats play two devices) when a checkpoint was written, one when it is read."""
    values = [torch.arange(4.0).view(2, 2), torch.arange(6.0), torch.arange(3.0)]
    apart = FlatWeights.of(
        [torch.nn.Parameter(v.to(d)) for v, d in zip(values, (torch.float32, torch.float64, torch.float32), strict=True)]
    )
    assert [len(vector) for vector in apart.vectors] == [7, 6]
    kept = apart.split(
        {
            0: {"step": torch.tensor(3.0), "exp_avg": torch.arange(7.0)},
            1: {"step": torch.tensor(3.0), "exp_avg": torch.arange(6.0) + 10},
        }
    )
    assert [kept[n]["exp_avg"].tolist() for n in range(3)] == [[[0, 1], [2, 3]], [10, 11, 12, 13, 14, 15], [4, 5, 6]]
    together = FlatWeights.of([torch.nn.Parameter(v) for v in values]).joined(kept)
    assert together[0]["exp_avg"].tolist() == [0, 1, 2, 3, 10, 11, 12, 13, 14, 15, 4, 5, 6]
    assert float(together[0]["step"]) == 3
    assert apart.joined(kept)[1]["exp_avg"].tolist() == [10, 11, 12, 13, 14, 15]


def test_memory_that_lacks_for_rows_is_met_beside_a_long_answer(monkeypatch):
    """The answer cannot be cut, and is larger than any part of rows."""
    model = tiny_llama(vocabulary=12)
    example = encoded([(a, b, 0) for a in range(1, 5) for b in range(1, 5)], [1 / 16] * 16)
    whole = RowsPass.part

    def part(self, model, encoded, part, loss):
        if part.end - part.start > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, model, encoded, part, loss)

    monkeypatch.setattr(RowsPass, "part", part)
    scorer = Scorer(model, RowsPass(), None, Processes("cpu"), lambda _: None)
    scorer.score([example], [answer(tuple(range(1, 10)), tuple([1] * 60), 12)])
    assert scorer.strategy.size <= 3
