"""An interrupted training goes on where it was, and ends in the very bits of the uninterrupted one."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffusecli.checkpoints import newest_checkpoint
from diffusecli.config import Config
from diffusecli.errors import InputError, InterruptedRun
from diffusecli.loss import PackedPass
from diffusecli.runs import RunDir
from diffusecli.train import train


@pytest.fixture
def config(tiny_model_folder, prompt_file, tmp_path):
    """Three prompts, dropout, retention: everything that draws random numbers."""
    prompts = [str(prompt_file(f"{n}.json", request=f"Say {n}.", targets=["{a}", "{b}", "{cd}"])) for n in range(3)]

    def make(name, **fields):
        settings = {"n_iters": 6, "learning_rate": 0.01, **fields.pop("alg_config", {})}
        return Config.model_validate({
            "model": str(tiny_model_folder), "train_prompts": prompts, "test_prompts": [], "alg_config": settings, "device": "cpu",
            "output_dir": str(tmp_path / name), "lora": {"dropout": 0.1}, "save_every": 2, **fields,
        })  # fmt: skip

    return make


def quietly(config, **more):
    return train(config, report=more.pop("report", lambda _: None), notice=lambda _: None, **more)


def adapter(config):
    return Path(config.output_dir, "adapter_model.safetensors").read_bytes()


def interrupt_at(monkeypatch, pass_number):
    """Ctrl-C during the given forward pass of training."""
    passes = iter(range(1000))
    whole = PackedPass.run

    def run(self, *args, **options):
        if options.get("backward") and next(passes) == pass_number:
            os.kill(os.getpid(), signal.SIGINT)
        return whole(self, *args, **options)

    monkeypatch.setattr(PackedPass, "run", run)


@pytest.mark.parametrize("pass_number", [0, 1, 5, 8, 13, 17])
def test_after_ctrl_c_in_any_step_the_same_command_goes_on_to_the_same_adapter(config, monkeypatch, pass_number):
    whole = config("whole")
    expected = quietly(whole)
    with monkeypatch.context() as during:
        interrupt_at(during, pass_number)
        with pytest.raises(InterruptedRun, match="the same command goes on from there") as stopped:
            quietly(config("cut"))
    assert stopped.value.exit_code == 130
    found = quietly(config("cut"))
    assert adapter(config("cut")) == adapter(whole)
    assert found.before == expected.before
    assert found.after == expected.after
    lines = [json.loads(line) for line in found.run.metrics.read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 2, 3, 4, 5, 6]
    expected_lines = [json.loads(line) for line in expected.run.metrics.read_text().splitlines()]
    assert [line["loss"] for line in lines] == [line["loss"] for line in expected_lines]
    assert newest_checkpoint(found.run) is None


def test_a_run_killed_or_interrupted_at_random_moments_ends_in_the_same_bits(config, tmp_path, diffuse):
    whole, cut = config("whole"), config("cut")
    quietly(whole)
    path = tmp_path / "cut.yaml"
    path.write_text(cut.model_copy(update={"save_every": 1}).to_yaml())
    moments = random.Random(os.urandom(8))
    for least, number in ((1, signal.SIGKILL), (2, signal.SIGINT), (4, signal.SIGKILL)):
        command = [Path(sys.executable).with_name("diffuse"), "train", str(path)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
            for line in process.stderr:
                if line.startswith("iteration ") and int(line.split()[1].split("/")[0]) >= least:
                    break
            time.sleep(moments.uniform(0, 0.03))
            process.send_signal(number)
            rest = process.stderr.read()
        if number is signal.SIGINT and process.returncode != 0:  # it may have been done already
            assert process.returncode == 130
            assert "the same command goes on from there" in rest
            assert "Traceback" not in rest
    done = diffuse("train", path)
    assert "going on after" in done.stderr or "holds a finished run already" in done.stderr, done.stderr
    assert adapter(cut) == adapter(whole)


def test_an_interrupted_run_with_other_settings_is_not_continued(config, monkeypatch):
    with monkeypatch.context() as during:
        interrupt_at(during, 4)
        with pytest.raises(InterruptedRun):
            quietly(config("cut"))
    other = config("cut", alg_config={"learning_rate": 0.02})
    with pytest.raises(InputError, match=r"an interrupted run with another alg_config; give it back its settings .* --force"):
        quietly(other)
    assert quietly(other, force=True).reason == "all 6 iterations done"


def test_where_results_go_on_to_be_sampled_may_change_on_the_way(config, monkeypatch):
    with monkeypatch.context() as during:
        interrupt_at(during, 4)
        with pytest.raises(InterruptedRun):
            quietly(config("cut"))
    assert quietly(config("cut", save_every=1, eval_every=3)).reason == "all 6 iterations done"


def test_a_checkpoint_that_cannot_be_read_is_named(config, monkeypatch):
    with monkeypatch.context() as during:
        interrupt_at(during, 4)
        with pytest.raises(InterruptedRun):
            quietly(config("cut"))
    checkpoint = newest_checkpoint(RunDir(Path(config("cut").output_dir)))
    (checkpoint / "state.safetensors").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"state\.safetensors: the checkpoint cannot be read"):
        quietly(config("cut"))


def test_a_checkpoint_is_an_adapter_that_another_run_can_start_from(config, monkeypatch):
    with monkeypatch.context() as during:
        interrupt_at(during, 10)
        with pytest.raises(InterruptedRun):
            quietly(config("cut"))
    checkpoint = newest_checkpoint(RunDir(Path(config("cut").output_dir)))
    more = config("more", load_model=True, ckpt_dir=str(checkpoint), alg_config={"n_iters": 1})
    started, fresh = quietly(more), quietly(config("fresh", alg_config={"n_iters": 1}))
    assert all(started.before.kl[alias] < kl - 1 for alias, kl in fresh.before.kl.items())


def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(config, monkeypatch):
    whole = PackedPass.run
    passes = iter(range(1000))

    def run(self, *args, **options):
        found = whole(self, *args, **options)
        return found * float("nan") if options.get("backward") and next(passes) == 14 else found

    monkeypatch.setattr(PackedPass, "run", run)
    with pytest.raises(
        InputError, match=r"no number any more in iteration 5.*--force \(the last good checkpoint is .*checkpoint-12\)"
    ):
        quietly(config("cut"))
    assert newest_checkpoint(RunDir(Path(config("cut").output_dir))).name == "checkpoint-12"
