"""An interrupted training goes on where it was, and ends in the very bits of the uninterrupted one."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import SafetensorError
from safetensors.torch import load_file

from diffusecli.prompts.config import Config
from diffusecli.prompts.config_files import read_config
from diffusecli.runs.run_dir import RunDir
from diffusecli.sampling.counting import CountingSampler
from diffusecli.system.errors import InputError, InterruptedRun, MachineError
from diffusecli.training import loop
from diffusecli.training.checkpoints import _differing, newest_checkpoint
from diffusecli.training.packed_pass import PackedPass
from diffusecli.training.scorer import Scorer
from diffusecli.verbs.train import GENERATIONS, settings_of_result, train
from tests.counting import spoiled


@pytest.fixture(scope="session")
def prompts(tmp_path_factory):
    """Three files that no test changes."""
    folder = tmp_path_factory.mktemp("prompts")
    for n in range(3):
        (folder / f"{n}.json").write_text(json.dumps({"request": f"Say {n}.", "targets": ["{a}", "{b}", "{cd}"]}))
    return [str(folder / f"{n}.json") for n in range(3)]


@pytest.fixture
def config(tiny_model_folder, prompts, tmp_path):
    """Three prompts, dropout, retention: everything that draws random numbers."""

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


def metrics(trained):
    return [json.loads(line) for line in trained.run.metrics.read_text().splitlines()]


@pytest.fixture(scope="session")
def only_whole():
    """What the first uninterrupted training gave."""
    return []


@pytest.fixture
def whole(config, only_whole):
    """What training gives that is not interrupted, its adapter, its figures."""
    if not only_whole:
        wanted = config("whole")
        trained = quietly(wanted)
        only_whole.append((trained, adapter(wanted), metrics(trained)))
    return only_whole[0]


def interrupt_at(monkeypatch, pass_number):
    """Ctrl-C during the given forward pass of training."""
    passes = iter(range(1000))
    whole = PackedPass.run

    def run(self, *args, **options):
        if options.get("loss") and next(passes) == pass_number:
            os.kill(os.getpid(), signal.SIGINT)
        return whole(self, *args, **options)

    monkeypatch.setattr(PackedPass, "run", run)


@pytest.fixture
def interrupted(monkeypatch):
    """Run until Ctrl-C in the given pass; gives the error that tells how to go on."""

    def run(config, pass_number, **more):
        with monkeypatch.context() as during:
            interrupt_at(during, pass_number)
            with pytest.raises(InterruptedRun) as stopped:
                quietly(config, **more)
        return stopped.value

    return run


@pytest.mark.parametrize("pass_number", [0, 1, 5, 8, 13, 17])
def test_after_ctrl_c_in_any_step_the_same_command_goes_on_to_the_same_adapter(config, interrupted, whole, pass_number):
    expected, expected_adapter, expected_lines = whole
    stopped = interrupted(config("cut"), pass_number)
    assert "Run the same command to resume" in str(stopped)
    assert stopped.exit_code == 130
    found = quietly(config("cut"))
    assert adapter(config("cut")) == expected_adapter
    assert found.before == expected.before
    assert found.after == expected.after
    lines = metrics(found)
    assert [line["iteration"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["loss"] for line in lines] == [line["loss"] for line in expected_lines]
    assert newest_checkpoint(found.run) is None


def test_a_run_that_was_interrupted_before_its_first_step_resumes(config, whole, monkeypatch):
    _, expected_adapter, _ = whole

    def asked_to_stop(*_):
        raise loop._AskedToStopError

    with monkeypatch.context() as during, pytest.raises(InterruptedRun):
        during.setattr(loop, "_step", asked_to_stop)
        quietly(config("cut"))
    assert newest_checkpoint(RunDir(Path(config("cut").output_dir))).name == "checkpoint-0"
    quietly(config("cut"))
    assert adapter(config("cut")) == expected_adapter


def test_an_interrupted_run_with_other_settings_is_not_continued(config, interrupted):
    interrupted(config("cut"), 4)
    other = config("cut", alg_config={"learning_rate": 0.02})
    with pytest.raises(
        InputError,
        match=r"an interrupted run with different settings: alg_config.learning_rate \(was 0.01, now 0.02\)\. Restore the original settings .* --force",
    ):
        quietly(other)
    assert quietly(other, force=True).reason == "finished 6 iterations"


def test_a_changed_section_is_one_difference(config, interrupted):
    """Without retention, the checkpoint has none of the 240 instructions."""
    interrupted(config("cut", retain={}), 4)
    with pytest.raises(InputError, match=r"with different settings: retain \(was on, now off\)\. Restore"):
        quietly(config("cut", retain=False))


def test_the_first_few_of_many_changed_prompts_are_named():
    there = {"prompts": {f"p{i}.json": "a" for i in range(8)}, "train_prompts": ["p"], "seed": 1}
    here = {"prompts": {f"p{i}.json": "b" for i in range(8)}, "train_prompts": ["q"], "seed": 1}
    expected = ["train_prompts (was ['p'], now ['q'])", "prompts (p0.json; p1.json; p2.json; p3.json; p4.json; and 3 more)"]
    assert list(_differing(there, here)) == expected


def test_where_results_go_on_to_be_sampled_may_change_on_the_way(config, interrupted):
    interrupted(config("cut"), 4)
    assert quietly(config("cut", save_every=1, eval_every=3)).reason == "finished 6 iterations"


def test_a_checkpoint_that_cannot_be_read_is_named(config, interrupted):
    interrupted(config("cut"), 4)
    checkpoint = newest_checkpoint(RunDir(Path(config("cut").output_dir)))
    (checkpoint / "state.safetensors").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"state\.safetensors: the checkpoint cannot be read"):
        quietly(config("cut"))


def test_a_checkpoint_is_an_adapter_that_another_run_can_start_from(config, interrupted):
    interrupted(config("cut"), 10)
    checkpoint = newest_checkpoint(RunDir(Path(config("cut").output_dir)))
    more = config("more", load_model=True, ckpt_dir=str(checkpoint), alg_config={"n_iters": 1})
    started, fresh = quietly(more), quietly(config("fresh", alg_config={"n_iters": 1}))
    assert all(started.before.kl[alias] < kl - 1 for alias, kl in fresh.before.kl.items())


def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(config, monkeypatch):
    whole = PackedPass.run
    passes = iter(range(1000))

    def run(self, *args, **options):
        found = whole(self, *args, **options)
        return spoiled(found) if options.get("loss") and next(passes) == 14 else found

    monkeypatch.setattr(PackedPass, "run", run)
    with pytest.raises(
        InputError, match=r"NaN or infinite after 14 steps.*--force \(the last good checkpoint is .*checkpoint-12\)"
    ):
        quietly(config("cut"))
    assert newest_checkpoint(RunDir(Path(config("cut").output_dir))).name == "checkpoint-12"


def test_weights_that_went_bad_are_not_kept_as_a_good_checkpoint(config):
    wild = config("wild", save_every=1, alg_config={"learning_rate": 1e30, "schedule": "constant", "n_iters": 30})
    with pytest.raises(InputError, match="the loss is NaN or infinite") as stopped:
        quietly(wild)
    kept = newest_checkpoint(RunDir(Path(wild.output_dir)))
    assert ("there is no checkpoint" in str(stopped.value)) == (kept is None)
    if kept is not None:
        weights = load_file(kept / "adapter_model.safetensors")
        assert all(weight.abs().max() < 1e6 for weight in weights.values())


def test_folders_of_other_names_are_left_alone(config, tmp_path):
    others = [tmp_path / "cut" / name for name in ("checkpoint-99-backup", "checkpoint-old")]
    for other in others:
        other.mkdir(parents=True)
    found = quietly(config("cut"))
    assert all(other.is_dir() for other in others)
    assert newest_checkpoint(found.run) is None


def files(run):
    """Content and inode of what training writes: a file that is written anew is another one."""
    return {name: ((run.path / name).read_bytes(), (run.path / name).stat().st_ino) for name in TRAINED}


TRAINED = ("adapter_model.safetensors", "run.json", "metrics.jsonl", "config.yaml", "README.md", "prompts.json")


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_interrupted_while_it_samples_says_what_is_saved_and_goes_on_to_sample_only(config, monkeypatch, processes, force):
    """Whatever the number of processes that trained."""
    wanted = config("cut", generate=True)
    wanted = wanted.model_copy(update={"test_prompts": wanted.train_prompts[:2]})
    whole, drawn = CountingSampler.draw, iter(range(10))

    def draw(self):
        if next(drawn) == 1:
            raise KeyboardInterrupt
        return whole(self)

    monkeypatch.setattr("diffusecli.sampling.local_engine._PROMPTS_TOGETHER", 1)
    monkeypatch.setattr(CountingSampler, "draw", draw)
    monkeypatch.setattr("diffusecli.verbs.train.GENERATIONS", replace(GENERATIONS, n_generations=40))
    with monkeypatch.context() as during:
        during.setattr(
            "diffusecli.verbs.train.settings_of_result", lambda *given: {**settings_of_result(*given), "processes": processes}
        )
        with pytest.raises(InterruptedRun) as stopped:
            trained = quietly(wanted, force=force)
    run = RunDir(Path(wanted.output_dir))
    again = "The same command without --force" if force else "The same command"
    assert str(stopped.value) == (
        f"{run.path}: interrupted. The training is complete and the adapter is saved, 40 of 80 samples are kept. {again} resumes from there"
    )
    before, passes = files(run), []
    monkeypatch.setattr(PackedPass, "run", lambda *_, **__: passes.append(1))
    trained = quietly(wanted)
    assert passes == [], "nothing is trained or measured again"
    assert next(drawn) == 3, "what was kept is not drawn again"
    assert files(run) == before
    assert json.loads((run.path / "run.json").read_text())["processes"] == processes
    assert newest_checkpoint(run) is None
    samples = json.loads((run.path / "gen.json").read_text())
    assert [len(samples[alias]) for alias in wanted.test_prompts] == [40, 40]
    assert trained.after.kl == json.loads((run.path / "run.json").read_text())["exact_kl"]


@pytest.mark.parametrize("place", ["load_model", "prepare_prompts", "make_optimiser", "optimise"])
def test_ctrl_c_before_the_first_step_says_that_nothing_was_trained(config, monkeypatch, place):
    expected = "interrupted. Nothing was trained yet. The same command starts again"
    wanted = config("cut", alg_config={"n_iters": 1})
    with monkeypatch.context() as during:
        during.setattr(f"diffusecli.verbs.train.{place}", fail)
        for force in (False, True):
            with pytest.raises(InterruptedRun) as stopped:
                quietly(wanted, force=force)
            assert str(stopped.value) == f"{wanted.output_dir}: {expected}"
    assert quietly(wanted).reason == "finished 1 iteration"


def fail(*_given, **_more):
    raise KeyboardInterrupt


def test_ctrl_c_while_a_training_resumes_says_that_its_checkpoint_is_kept(config, interrupted, monkeypatch):
    interrupted(config("cut"), 4)
    kept = newest_checkpoint(RunDir(Path(config("cut").output_dir)))
    number = kept.name.removeprefix("checkpoint-")
    for place in ("load_model", "optimise"):
        with monkeypatch.context() as during:
            during.setattr(f"diffusecli.verbs.train.{place}", fail)
            with pytest.raises(
                InterruptedRun, match=rf"The checkpoint of step {number} is kept\. The same command resumes from there$"
            ):
                quietly(config("cut"))
            if place == "load_model":
                with pytest.raises(InterruptedRun, match=r"Nothing was trained yet\. The same command starts again$"):
                    quietly(config("cut"), force=True)
    assert newest_checkpoint(RunDir(Path(config("cut").output_dir))) == kept


@pytest.mark.parametrize("target", ["diffusecli.verbs.train.save_run", "diffusecli.training.scorer.Scorer.exact"])
def test_ctrl_c_after_the_last_step_loses_nothing(config, whole, monkeypatch, target):
    expected, expected_adapter, _ = whole
    with monkeypatch.context() as during:
        calls = iter([*([] if target.endswith("save_run") else ["before", *["iteration"] * 6]), None])
        exact = Scorer.exact

        def stopped_at(*given, **more):
            if next(calls) is None:
                raise KeyboardInterrupt
            return exact(*given, **more)

        during.setattr(target, stopped_at)
        with pytest.raises(
            InterruptedRun, match=r"The training is complete and its last checkpoint is saved\. The same command resumes"
        ):
            quietly(config("cut"))
    found = quietly(config("cut"))
    assert adapter(config("cut")) == expected_adapter
    assert (found.after, found.reason) == (expected.after, expected.reason)


def test_after_an_interrupted_forced_run_the_way_on_is_told(config, interrupted):
    quietly(config("cut"))
    assert "Run the same command without --force to resume" in str(interrupted(config("cut"), 4, force=True))
    assert quietly(config("cut")).reason == "finished 6 iterations"


def test_a_checkpoint_that_the_disk_does_not_take_is_told(config, monkeypatch):
    def full(*_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("diffusecli.training.checkpoints.save_file", full)
    with pytest.raises(MachineError, match=r"checkpoint-6: cannot be written: .*No space left on device.*Free some space"):
        quietly(config("cut"))


def test_an_adapter_inside_the_output_folder_is_no_start(config):
    quietly(config("cut"))
    again = config("cut", load_model=True, ckpt_dir=config("cut").output_dir)
    with pytest.raises(InputError, match="ckpt_dir is in the output_dir, which training empties first"):
        quietly(again, force=True)


def test_what_continues_from_an_adapter_keeps_its_shape_and_says_so(config):
    quietly(config("first"))
    told = []
    more = config("more", load_model=True, ckpt_dir=config("first").output_dir, lora={"r": 9}, alg_config={"n_iters": 1})
    found = train(more, report=lambda _: None, notice=told.append)
    assert any("the adapter keeps its settings: r 4, alpha 8, dropout 0.1" in line for line in told)
    assert json.loads((found.run.path / "adapter_config.json").read_text())["r"] == 4
    assert read_config(found.run.config).lora == more.lora, "as configured"


def test_sizes_of_parts_may_change_when_a_run_goes_on(config, interrupted):
    interrupted(config("cut"), 4)
    smaller = config("cut", alg_config={"max_tokens_per_pass": 70, "gradient_checkpointing": True})
    assert quietly(smaller).run.read_manifest()["pass_size"] == 70


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_lines_of_metrics_that_are_lost_are_told_and_no_line_is_ever_cut(config, interrupted, kept):
    cut = config("cut")
    interrupted(cut, 13)
    metrics = RunDir(Path(cut.output_dir)).metrics
    lines = metrics.read_text().splitlines(keepends=True)
    assert len(lines) == 4
    metrics.write_text("".join(lines[:kept]) + lines[kept][:20])
    again = config("cut")
    told = []
    with pytest.MonkeyPatch.context() as during, pytest.raises(InterruptedRun):
        interrupt_at(during, 3)
        train(again, report=lambda _: None, notice=told.append)
    quietly(again)
    assert any(f"lines after iteration {kept} are missing. Figures continue with iteration 5" in line for line in told)
    assert [json.loads(line)["iteration"] for line in metrics.read_text().splitlines()] == [*range(1, kept + 1), 5, 6]


@pytest.mark.slow
def test_samples_that_were_missing_are_those_that_an_undisturbed_training_draws(config, prompts, monkeypatch):
    monkeypatch.setattr("diffusecli.verbs.train.GENERATIONS", replace(GENERATIONS, n_generations=40))
    undisturbed = config("whole", generate=True, test_prompts=prompts)
    quietly(undisturbed)
    cut = config("cut", generate=True, test_prompts=prompts)
    with monkeypatch.context() as during:

        def stopped(*_given, **_more):
            raise KeyboardInterrupt

        during.setattr("diffusecli.sampling.generations.write_samples", stopped)
        with pytest.raises(InterruptedRun, match="The training is complete and the adapter is saved"):
            quietly(cut)
    for left in Path(cut.output_dir).glob("*.partial.jsonl"):
        left.unlink()  # so that all are drawn anew
    quietly(cut)
    assert adapter(cut) == adapter(undisturbed)
    assert (Path(cut.output_dir) / "gen.json").read_bytes() == (Path(undisturbed.output_dir) / "gen.json").read_bytes()
