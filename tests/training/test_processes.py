"""Work shared between processes gives what one process gives; memory that does not suffice is met with smaller parts."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from diffusecli.prompts.config import Config
from diffusecli.system.errors import MachineError
from diffusecli.training.packed_pass import PackedPass
from diffusecli.training.processes import _shares
from diffusecli.verbs.evaluate import Question, evaluate
from diffusecli.verbs.train import GENERATIONS, train
from tests import ROOT
from tests.commands import HANG, forkserver, on_a_free_port
from tests.training.launched import begin

TARGETS = [f"{{{a}{b}}}" for a in "abcdef" for b in "uvwxyz"]


@given(st.lists(st.integers(1, 100)), st.integers(1, 5))
def test_every_piece_is_done_once_and_nobody_has_much_more_than_another(costs, processes):
    shares = _shares(costs, processes)
    assert sorted(index for share in shares for index in share) == list(range(len(costs)))
    loads = [sum(costs[index] for index in share) for share in shares]
    assert max(loads) - min(loads) <= max(costs, default=0)


ANSWERS = 200  # to each prompt


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """Two prompts that no test changes, and the run that `alone` is."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "p.json").write_text(json.dumps({"request": "Say a letter.", "targets": TARGETS}))
    (folder / "q.json").write_text(json.dumps({"request": "Another one.", "targets": ["{a}", "{b}"]}))
    return folder


@pytest.fixture
def config(tiny_model_folder, shared, tmp_path, monkeypatch):
    monkeypatch.setattr("diffusecli.verbs.train.GENERATIONS", replace(GENERATIONS, n_generations=ANSWERS))
    prompts = [str(shared / "p.json"), str(shared / "q.json")]

    def make(name, **fields):
        settings = {"n_iters": 6, "learning_rate": 0.01, **fields.pop("alg_config", {})}
        return Config.model_validate({
            "model": str(tiny_model_folder), "train_prompts": prompts, "device": "cpu", "alg_config": settings,
            "output_dir": str(tmp_path / name), **fields,
        })  # fmt: skip

    return make


def quietly(config, notice=lambda _: None):
    return train(config, report=lambda _: None, notice=notice)


@pytest.fixture
def alone(config, shared):
    """What one process gives: trained and sampled when it is asked for the first time."""
    made = sampled(config("alone", output_dir=str(shared / "alone")))
    if not (shared / "alone").exists():
        quietly(made)
    return made


def assert_same_result(config, other):
    """Adapters to 1e-5 and the losses of every iteration."""
    ours, theirs = (load_file(f"{c.output_dir}/adapter_model.safetensors") for c in (config, other))
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], atol=1e-5, rtol=0)
    lines = [Path(c.output_dir, "metrics.jsonl").read_text().splitlines() for c in (config, other)]
    losses = [[json.loads(line)["loss"] for line in of_one] for of_one in lines]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert len(losses[0]) == 6


@pytest.fixture
def launch(tmp_path):
    def run(config, launcher, **environment):
        path = tmp_path / "shared.yaml"
        path.write_text(yaml.safe_dump(config.model_dump(mode="json")))

        def on(port):
            words = [word.format(port=port) for word in launcher]
            done = subprocess.run(
                [sys.executable, *words, "-m", "tests.training.launched", "train", str(path)], capture_output=True, text=True, timeout=HANG,
                check=False, stdin=subprocess.DEVNULL, cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "ANSWERS": str(ANSWERS), **environment},
            )  # fmt: skip
            return None if done.returncode and re.search("EADDRINUSE|address already in use", done.stderr) else done

        return on_a_free_port(on)

    return run


@dataclass(frozen=True)
class Ended:
    """How two processes ended, by rank."""

    codes: list[int]
    said: list[str]  # on stdout
    told: list[str]  # on stderr


@pytest.fixture
def pair(tmp_path):
    """Two processes that nobody launched, nor would end."""

    def run(config, **environment):
        path = tmp_path / "shared.yaml"
        path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
        said, told = ([tmp_path / f"{name} of {rank}" for rank in "01"] for name in ("said", "told"))

        def on(port):
            own = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "ANSWERS": str(ANSWERS), **environment}
            both = [
                forkserver().Process(
                    target=begin, daemon=True,
                    args=(["train", str(path)], {**os.environ, **own, "RANK": str(rank), "LOCAL_RANK": str(rank)}, said[rank], told[rank]),
                )
                for rank in (0, 1)
            ]  # fmt: skip
            for process in both:
                process.start()
            try:
                for process in both:
                    process.join(HANG)
            finally:
                for process in both:
                    process.kill()
            ended = Ended([process.exitcode for process in both], *([path.read_text() for path in paths] for paths in (said, told)))
            return None if re.search("EADDRINUSE|address already in use", "".join(ended.told)) else ended

        return on_a_free_port(on)

    return run


TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1", "--master-port={port}"]
ACCELERATE = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no",
              "--dynamo_backend=no", "--main_process_port={port}"]  # fmt: skip
FSDP = {"ACCELERATE_USE_FSDP": "true"}


def sampled(config, **fields):
    """With test prompts to sample: one that is trained on and one that is not."""
    return config.model_copy(update={"test_prompts": config.train_prompts, **fields})


def assert_same_samples(config, other):
    """Of adapters that are the same but for rounding: shares that differ by no more than rounding could move."""
    ours, theirs = (json.loads(Path(c.output_dir, "gen.json").read_text()) for c in (config, other))
    assert ours.keys() == theirs.keys() == set(config.test_prompts)
    for alias, answers in ours.items():
        differing = (Counter(answers) - Counter(theirs[alias])).total()
        assert len(answers) == len(theirs[alias]) == ANSWERS
        assert differing <= ANSWERS / 50


def assert_made_together(together, alone):
    """By two processes, in place of one, and nothing is left beside it."""
    assert json.loads(Path(together.output_dir, "run.json").read_text())["processes"] == 2
    assert_same_result(together, alone)
    assert_same_samples(together, alone)
    assert not [path.name for path in Path(together.output_dir).iterdir() if path.name.startswith((".", "checkpoint"))]


@pytest.mark.slow
def test_two_processes_that_accelerate_launches_give_the_adapter_and_the_samples_of_one(config, alone, launch):
    together = sampled(config("together"))
    done = launch(together, ACCELERATE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finished ") == 1  # one speaks for both
    assert_made_together(together, alone)


@pytest.mark.slow
def test_two_processes_that_hold_half_of_the_base_each_give_the_adapter_and_the_samples_of_one(config, alone, pair):
    together = sampled(config("together"))
    done = pair(together, **FSDP)
    assert done.codes == [0, 0], done.told
    assert "".join(done.said).count("finished ") == 1
    assert_made_together(together, alone)


@pytest.mark.slow
def test_two_processes_that_hold_half_of_a_16_bit_base_each_train_and_leave_its_rounding_to_evaluate(config, pair):
    together = config("together", precision="bf16", generate=False, alg_config={"n_iters": 2})
    done = pair(together, **FSDP)
    assert done.codes == [0, 0], done.told
    manifest = json.loads(Path(together.output_dir, "run.json").read_text())
    assert manifest["dtype"] == "bfloat16"
    assert manifest["loss_pass"].startswith("packed")
    assert manifest["kl_rounding"] == dict.fromkeys(together.train_prompts)  # not known
    (row, _) = [row for row in evaluate([Path(together.output_dir)], Question(exact=True)).rows if row.mode == "lora"]
    assert 0 < row.exact.rounding < 0.3


@pytest.mark.slow
def test_two_processes_share_spellings_out_as_one_does(config, pair, tmp_path):
    spelled = tmp_path / "spelled.json"
    spelled.write_text(
        json.dumps({"request": "A letter.", "targets": [[t, t.strip("{}")] for t in TARGETS], "weights": list(range(1, 37))})
    )
    both = [str(spelled), config("any").train_prompts[1]]
    one, together = (config(name, train_prompts=both, retain=False, generate=False) for name in ("one", "together"))
    quietly(one)
    done = pair(together)
    assert done.codes == [0, 0], done.told
    assert_same_result(together, one)


@pytest.mark.slow
def test_two_processes_continue_from_a_run(config, pair):
    first = config("first", alg_config={"n_iters": 1})
    quietly(first)
    alone, together = (sampled(config(name, load_model=True, ckpt_dir=first.output_dir)) for name in ("alone", "together"))
    quietly(alone)
    done = pair(together)
    assert done.codes == [0, 0], done.told
    assert_made_together(together, alone)


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{}, FSDP], ids=["torchrun", "torchrun with the base spread over both"])
def test_two_processes_that_are_interrupted_resume_from_their_checkpoint_and_one_draws_what_they_leave(
    config, alone, launch, environment
):
    together = sampled(config("together"))
    cut = launch(together, TORCHRUN, TROUBLE="interrupt step 5", **environment)
    assert cut.returncode != 0
    assert cut.stderr.count("interrupted after 3 of 6 iterations. Run the same command to resume") == 1, cut.stderr
    folder = Path(together.output_dir)
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-6"]
    cut = launch(together, TORCHRUN, TROUBLE="interrupt draw 1", **environment)
    assert cut.returncode != 0
    assert "resuming after 3 of 6 iterations (6 steps)" in cut.stderr
    assert "interrupted. The training is complete and the adapter is saved" in cut.stderr, cut.stderr
    assert (f"{ANSWERS} of {2 * ANSWERS} samples are kept" in cut.stderr) == (not environment)
    assert_same_result(together, alone)
    before = {name: (folder / name).read_bytes() for name in ("adapter_model.safetensors", "run.json", "metrics.jsonl")}
    told = []
    quietly(together, notice=told.append)
    assert any("Drawing the missing samples" in line for line in told)
    assert before == {name: (folder / name).read_bytes() for name in before}
    assert_same_samples(together, alone)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trouble", "code", "told"),
    [
        ("fail read 1 InputError", 2, "diffuse: trouble in process 1"),
        ("fail load 1 MachineError", 3, "diffuse: trouble in process 1"),
        ("fail step 1 ValueError", 3, "diffuse: process 1 failed: ValueError: trouble in process 1"),
        ("fail tell 0 MachineError", 3, "diffuse: trouble in process 0"),
        ("fail write 0 MachineError", 3, "diffuse: trouble in process 0"),
    ],
)
def test_an_error_in_one_process_stops_the_others_with_its_sentence(config, pair, trouble, code, told):
    ended = pair(sampled(config("together")), TROUBLE=trouble)
    assert ended.codes[0] == code, ended.told
    assert ended.codes[1] not in (0, None)
    assert told in ended.told[0], ended.told
    assert sum(text.count(told) for text in ended.told) == 1
    assert ("Traceback" in ended.told[1]) == ("ValueError" in trouble), ended.told[1]


def short_of_memory(monkeypatch, most):
    """Passes of more than `most` tokens do not fit."""
    whole = PackedPass.run

    def run(self, model, encoded, answers, batch, **options):
        found = whole(self, model, encoded, answers, batch, **options)
        if options.get("loss") and batch.parts and batch.tokens > most:
            raise torch.OutOfMemoryError("CUDA out of memory")  # after it left something in the gradient
        return found

    monkeypatch.setattr(PackedPass, "run", run)


def test_too_little_memory_means_smaller_parts_and_the_same_adapter(config, alone, monkeypatch):
    told = []
    with monkeypatch.context() as during:
        short_of_memory(during, 60)
        quietly(config("tight"), notice=told.append)
    assert any("not enough memory: continuing with parts of" in line for line in told)
    assert_same_result(config("tight"), alone)


def test_too_little_memory_outside_steps_means_smaller_parts_too(config, alone, monkeypatch):
    whole = PackedPass.run

    def run(self, model, encoded, answers, batch, **options):
        if batch.parts and batch.tokens > 60:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, model, encoded, answers, batch, **options)

    with monkeypatch.context() as during:
        during.setattr(PackedPass, "run", run)
        quietly(config("tight"))
    assert_same_result(config("tight"), alone)


def test_rows_are_halved_down_to_one(config):
    from diffusecli.training.rows_pass import RowsPass
    from tests.training.test_loss import encoded

    example = encoded([(a, 0) for a in range(1, 11)], [0.1] * 10)
    sizes, way = [], RowsPass(32)
    while way.size > 1:
        way = way.halved(way.batches([example]))
        sizes.append(way.size)
    assert sizes == [5, 2, 1]


def test_memory_that_suffices_for_nothing_is_an_error_with_the_remedy(config, monkeypatch):
    short_of_memory(monkeypatch, 1)
    with pytest.raises(MachineError, match="gradient_checkpointing"):
        quietly(config("none"))


def test_gradient_checkpointing_computes_layers_again_and_gives_the_same_adapter(config, monkeypatch):
    from diffusecli.models import block_attention

    calls = []
    whole = block_attention.forward
    monkeypatch.setattr(block_attention, "forward", lambda *a, **k: calls.append(1) or whole(*a, **k))
    quietly(config("plain"))
    plain = len(calls)
    quietly(config("checkpointed", alg_config={"gradient_checkpointing": True}))
    assert len(calls) - plain > 1.2 * plain
    assert_same_result(config("checkpointed"), config("plain"))


def test_attention_by_tree_is_seen_from_other_threads(config, alone, monkeypatch):
    """On CUDA backward passes run in threads of autograd's own."""
    backward = torch.Tensor.backward

    def elsewhere(self, *args):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(backward, self, *args).result()

    monkeypatch.setattr(torch.Tensor, "backward", elsewhere)
    quietly(config("checkpointed", alg_config={"gradient_checkpointing": True}))
    assert_same_result(config("checkpointed"), alone)


def test_device_map_is_accepted_where_there_is_one_device(config, alone):
    quietly(config("spread", device_map="auto"))
    assert_same_result(config("spread"), alone)


def test_figures_reach_tensorboard(config):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trained = quietly(config("tracked", tracker="tensorboard"))
    events = EventAccumulator(str(trained.run.path / "logs" / "diffuse"))
    events.Reload()
    lines = [json.loads(line) for line in trained.run.metrics.read_text().splitlines()]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx([line["loss"] for line in lines])
    alias = next(iter(lines[0]["kl"]))
    assert [event.step for event in events.Scalars(f"kl/{alias}")] == [1, 2, 3, 4, 5, 6]


def test_a_tracker_that_is_not_installed_is_named(config, in_process, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(config("x", tracker="clearml").to_yaml())
    done = in_process("train", path)
    assert done.returncode == 2
    assert "tracker: clearml is not installed" in done.stderr
    assert "Traceback" not in done.stderr
