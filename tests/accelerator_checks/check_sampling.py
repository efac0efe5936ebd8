"""Samples on the accelerator are those of the CPU, with few waits per token."""

import pytest
import torch

from diffusecli.models.devices import own_random_numbers
from diffusecli.models.lora import merged
from diffusecli.models.overflow import NotNumbersError
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.prompt import Prompt
from diffusecli.sampling import batched, draws, rows
from diffusecli.sampling.batched import choose_cache, generate_rows
from diffusecli.sampling.draws import Live, draw_tokens
from diffusecli.sampling.engine import Wanted
from diffusecli.sampling.local_engine import LocalEngine
from diffusecli.sampling.row_choice import choose_rows
from diffusecli.sampling.rows import GatheredCache, SharedPrompt
from diffusecli.sampling.settings import SamplingSettings
from tests.accelerator import counting
from tests.models.architectures import build
from tests.tiny import tiny_llama

PROMPTS = [Prompt(request=request, targets=(), alias=f"{request}.json") for request in ("x", "a longer one")]
TOKENS = 4


def drawn(base, kind=None, prompts=PROMPTS, n=100):
    """Counted answers to each prompt."""
    engine, found = LocalEngine(base, SamplingSettings(n, TOKENS)), []
    if kind is not None:
        engine._kind.make = kind
    with merged(base.model):
        engine.draw_all([Wanted(p, n, Answers(), lambda answers, _: found.append(answers), lambda _: None) for p in prompts])
    return found


def untied():
    return tiny_llama(vocabulary=2500, tie_word_embeddings=False)  # three blocks of tokens, the last one shorter


def common(found, expected):
    """The share of answers that both have."""
    return sum((one & other).total() for one, other in zip(found, expected, strict=True)) / sum(map(Answers.total, expected))


@pytest.mark.parametrize("spread", [False, True], ids=["one GPU", "two GPUs"])
@pytest.mark.parametrize("kind", [SharedPrompt, GatheredCache])
def test_counted_samples_are_those_of_the_cpu(tiny, on_gpu, kind, spread, device):
    device.free.update({0: 10**9})
    base = tiny(untied(), dtype=torch.float64, fused=False)
    moved = on_gpu(base, spread=spread)
    assert choose_rows(moved.model).make is SharedPrompt
    assert drawn(moved, kind) == drawn(base, kind)


@pytest.mark.parametrize("name", ["Mamba", "Qwen3_5Text"])
def test_samples_of_a_model_with_states_are_those_of_the_cpu(tiny, on_gpu, name):
    """Drawn by `generate`. Both devices begin with the same seed here."""
    base = tiny(build(name, vocab_size=400))
    moved = on_gpu(base)
    assert not LocalEngine(moved, SamplingSettings(1, 1)).counting
    assert common(drawn(moved), drawn(base)) > 0.95


def test_several_prompts_share_passes(tiny, on_gpu, device):
    device.free.update({0: 10**9})
    assert LocalEngine(on_gpu(tiny(untied())), SamplingSettings(1, 1))._joins


@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 0.95), (torch.bfloat16, 0.5)])
def test_a_device_without_float64_is_enough(tiny, on_gpu, no_float64, device, dtype, share):
    """The same random numbers give the same answers where rounding does not decide."""
    device.free.update({0: 10**9})
    base = tiny(untied(), dtype=dtype)
    assert common(drawn(on_gpu(base)), drawn(base)) > share


def counted(base, kind, samples, max_rows=None):
    """The waits and uploads, and the steps of the sampler."""
    engine, steps = LocalEngine(base, SamplingSettings(samples, TOKENS), max_rows), []
    engine._kind.make = kind
    with merged(base.model), counting() as counts:
        engine.draw_all([Wanted(PROMPTS[0], samples, Answers(), lambda *_: None, steps.append)])
    return counts, len(steps)


@pytest.mark.parametrize("samples", [1, 60, 300], ids=lambda samples: f"{samples} answers")
@pytest.mark.parametrize("kind", [SharedPrompt, GatheredCache])
def test_a_step_waits_once_however_many_rows_it_has(tiny, on_gpu, kind, samples, device, monkeypatch):
    """A step draws a token for each row. With 300 answers it has several slices of rows, and searches its draws in several parts."""
    device.free.update({0: 10**9})
    monkeypatch.setattr(draws, "_SEARCHED_AT_ONCE", 40)
    counts, steps = counted(on_gpu(tiny(untied())), kind, samples)
    assert 0 < steps <= TOKENS
    assert counts.own("waits").total() == steps, counts.waits
    if samples <= 40:
        assert counts.own("uploads").total() <= 4 * steps, counts.uploads


def test_a_second_wait_in_a_step_is_counted(tiny, on_gpu, device, monkeypatch):
    """The sums of blocks on the host, as before tokens were searched on the device."""
    device.free.update({0: 10**9})
    sums = draws._sums
    monkeypatch.setattr(draws, "_sums", lambda exps: sums(exps).cpu().to(exps.device, non_blocking=True))
    counts, steps = counted(on_gpu(tiny(untied())), SharedPrompt, 60)
    here = [times for line, times in counts.waits.items() if line.startswith("tests/")]
    assert sum(here) == counts.own("waits").total() == steps > 0


@pytest.mark.parametrize("spread", [False, True], ids=["one GPU", "two GPUs"])
def test_generate_has_its_own_random_numbers_and_waits_once_per_token(tiny, on_gpu, spread):
    base = on_gpu(tiny(untied()), spread=spread)
    torch.manual_seed(5)
    before, after = torch.rand(3, device="gpu").cpu(), torch.rand(3, device="gpu").cpu()
    torch.manual_seed(5)
    assert torch.rand(3, device="gpu").cpu().tolist() == before.tolist()
    assert choose_cache(base.model)
    with counting() as counts:
        one = generate_rows(base.model, [(5, 6, 7), (8, 9)], [2], settings=SamplingSettings(max_new_tokens=TOKENS), seed=3)
    assert torch.rand(3, device="gpu").cpu().tolist() == after.tolist(), "generate has changed the random numbers of others"
    other = generate_rows(base.model, [(5, 6, 7), (8, 9)], [2], settings=SamplingSettings(max_new_tokens=TOKENS), seed=3)
    assert one == other
    assert counts.own("waits").total() <= TOKENS + 1, counts.own("waits")


def test_random_numbers_of_both_gpus_continue_as_before(tiny, on_gpu):
    base = on_gpu(tiny(untied()), spread=True)
    torch.manual_seed(5)
    expected = [torch.rand(3, device=f"gpu:{gpu}").cpu().tolist() for gpu in (0, 1)]
    torch.manual_seed(5)
    with own_random_numbers(base.model, 7):
        assert torch.rand(3, device="gpu:1").cpu().tolist() != expected[1]
    assert [torch.rand(3, device=f"gpu:{gpu}").cpu().tolist() for gpu in (0, 1)] == expected


@pytest.mark.parametrize("kind", [SharedPrompt, GatheredCache])
def test_a_tensor_that_stays_on_the_cpu_is_found(tiny, on_gpu, monkeypatch, kind, device):
    """So the tests above can fail."""
    device.free.update({0: 10**9})
    base = on_gpu(tiny(untied()))
    monkeypatch.setattr(rows, "uploaded", lambda tensors, _: tensors)
    with pytest.raises(RuntimeError, match="same device"):
        kind(base.model, (5, 6, 7)).start()


def test_an_index_of_the_first_gpu_is_found_on_the_second(tiny, on_gpu, monkeypatch, device):
    base = on_gpu(tiny(untied()), spread=True)
    monkeypatch.setattr(rows, "is_spread", lambda _: False)
    kept = GatheredCache(base.model, (5, 6, 7))
    with torch.inference_mode():
        kept.start()
        with pytest.raises(RuntimeError, match="device"):
            kept.extend([0, 0], [5, 6])


def test_random_numbers_that_are_not_kept_are_found(tiny, on_gpu, monkeypatch):
    from contextlib import contextmanager

    @contextmanager
    def careless(_model, seed):
        torch.manual_seed(seed)
        yield

    base = on_gpu(tiny(untied()))
    monkeypatch.setattr(batched, "own_random_numbers", careless)
    before = torch.get_device_module("gpu").get_rng_state(0)
    generate_rows(base.model, [(5, 6)], [2], settings=SamplingSettings(max_new_tokens=2), seed=3)
    assert not torch.equal(before, torch.get_device_module("gpu").get_rng_state(0))


def test_tokens_are_those_of_the_cpu_however_many_are_drawn(device):
    """The CPU sorts many draws of a row; the device searches each."""
    logits = torch.randn(70, 2500, generator=torch.Generator().manual_seed(0)) * 3
    live = Live([0] * 70, [(row,) for row in range(70)], [1, 900, 0, 17, *[3] * 66])
    found, expected = (draw_tokens([(1, 2)], SamplingSettings(1, 1), live, logits.to(where)) for where in ("gpu", "cpu"))
    assert found == expected
    assert [sum(count for _, count in pairs) for pairs in found] == live.counts


def test_probabilities_that_are_not_numbers_are_found(device):
    logits = torch.zeros(3, 2500)
    logits[1, 7] = torch.nan
    live = Live([0] * 3, [(row,) for row in range(3)], [2] * 3)
    with pytest.raises(NotNumbersError):
        draw_tokens([(1, 2)], SamplingSettings(1, 1), live, logits.to("gpu"))
