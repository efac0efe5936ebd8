"""The pretended device refuses what a real one refuses; memory, random numbers and the choice of the device."""

import pytest
import torch

from diffusecli.models.devices import (
    choose_device,
    devices_of,
    free_memory,
    is_spread,
    peak_memory_mb,
    release_memory,
    sum_dtype,
    uploaded,
)
from diffusecli.system import memory
from tests.accelerator import counting
from tests.tiny import tiny_llama

GPU, OTHER, CPU = "gpu:0", "gpu:1", "cpu"


@pytest.mark.parametrize(
    "mixed",
    [
        lambda: torch.ones(2, device=GPU) + torch.ones(2),
        lambda: torch.ones(2, device=GPU) + torch.ones(2, device=OTHER),
        lambda: torch.ones(2, 2, device=GPU).index_select(0, torch.tensor([0])),
        lambda: torch.ones(2, 2)[torch.tensor([0], device=GPU)],
        lambda: torch.ones(2, 2, device=OTHER)[torch.tensor([0], device=GPU)],
        lambda: torch.mm(torch.ones(2, 2, device=GPU), torch.ones(2, 2, device=GPU), out=torch.ones(2, 2)),
    ],
)
def test_tensors_of_two_devices_do_not_mix(mixed):
    with pytest.raises(RuntimeError, match="same device"):
        mixed()


def test_numbers_and_indices_may_come_from_the_cpu():
    assert (torch.ones(2, device=GPU) * torch.tensor(3.0)).tolist() == [3, 3]
    with counting() as counts:
        assert torch.arange(4, device=GPU)[torch.tensor([1, 2])].shape == (2,)
    assert (counts.waits.total(), counts.uploads.total()) == (1, 1)


def test_created_tensors_have_their_shape():
    created = [
        torch.arange(3, device=GPU),
        torch.arange(1, 7, 2, device=GPU),
        torch.eye(3, device=GPU)[0],
        torch.randperm(3, device=GPU),
    ]
    created += [torch.linspace(0, 1, 3, device=GPU), torch.tensor([1, 2, 3], device=GPU), torch.full((3,), 2, device=GPU)]
    assert [one.shape for one in created] == [(3,)] * len(created)
    assert created[1].tolist() == [1, 3, 5]


def test_waits_and_copies_are_counted_by_line():
    numbers = torch.arange(4, device=GPU)
    with counting() as counts:
        numbers.sum().item()
        numbers.tolist()
        numbers.cpu()
        numbers.nonzero()
        numbers.to(OTHER)
        torch.ones(2).to(GPU)
        torch.ones(2).to(GPU, non_blocking=True)
        torch.zeros(2, device=GPU)
    assert counts.waits.total() == 5
    assert counts.uploads.total() == 2
    assert all(line.startswith("tests/accelerator_checks/check_devices.py:") for line in counts.uploads)


def test_each_gpu_has_its_own_random_numbers():
    torch.manual_seed(1)
    first = torch.rand(2, device=GPU).tolist()
    plain = torch.rand(2).tolist()
    torch.manual_seed(1)
    assert torch.rand(2).tolist() == plain, "the GPU has used those of the CPU"
    assert torch.rand(2, device=GPU).tolist() == first
    assert torch.rand(2, device=OTHER).tolist() != first


def test_the_accelerator_of_the_machine_is_chosen():
    assert choose_device("auto").type == "gpu"
    assert choose_device("cpu") == torch.device("cpu")


def test_sums_are_of_float64_where_the_device_has_it(device):
    assert sum_dtype(torch.device(GPU)) == sum_dtype(torch.device(CPU)) == torch.float64
    sum_dtype.cache_clear()
    device.float64 = False
    assert sum_dtype(torch.device(GPU)) == torch.float32
    with pytest.raises(TypeError, match="float64"):
        torch.ones(2).double().to(GPU)


def test_uploads_are_one_copy_per_dtype():
    tensors = [torch.arange(6).view(2, 3), torch.ones(2), torch.tensor([7]), torch.zeros(0), torch.tensor([[True]])]
    with counting() as counts:
        found = uploaded(tensors, torch.device(OTHER))
    assert (counts.uploads.total(), counts.waits.total()) == (3, 0)
    for one, other in zip(found, tensors, strict=True):
        assert one.device == torch.device(OTHER)
        assert torch.equal(one.cpu(), other)
    assert all(one is other for one, other in zip(uploaded(tensors, torch.device("cpu")), tensors, strict=True))


def test_free_memory_includes_what_torch_keeps(device):
    device.free[1], device.allocated[1], device.reserved[1] = 1000, 300, 700
    assert free_memory(torch.device(OTHER)) == 1400
    release_memory(torch.device(OTHER))
    assert free_memory(torch.device(OTHER)) == 1000


def test_the_peak_is_that_of_the_gpus_in_use(device, monkeypatch):
    monkeypatch.setattr(memory, "peak_memory_mb", lambda: 7)
    device.peak[0], device.peak[1] = 100 * 10**6, 50 * 10**6
    assert peak_memory_mb([torch.device(GPU), torch.device(OTHER)]) == 150
    assert peak_memory_mb([torch.device(OTHER)]) == 50
    assert peak_memory_mb([torch.device(CPU)]) == peak_memory_mb() == 7


def test_a_device_that_records_no_peak_has_that_of_the_process(monkeypatch):
    """Apple's MPS. Its memory is a part of the machine's."""

    class Mps:
        recommended_max_memory = staticmethod(lambda: 1000)
        current_allocated_memory = staticmethod(lambda: 400)

    monkeypatch.setattr(torch, "get_device_module", lambda _: Mps)
    monkeypatch.setattr(memory, "peak_memory_mb", lambda: 7)
    monkeypatch.setattr(memory, "free_memory", lambda: 10**6)
    assert peak_memory_mb([torch.device("mps")]) == 7
    assert free_memory(torch.device("mps")) == 600


def test_a_model_over_two_gpus_is_on_both():
    model = tiny_llama().to(GPU)
    assert devices_of(model) == [torch.device(GPU)]
    assert not is_spread(model)
    model.model.norm.to(OTHER)
    model.hf_device_map = {"model.norm": OTHER, "": GPU}
    assert devices_of(model) == [torch.device(GPU), torch.device(OTHER)]
    assert is_spread(model)
