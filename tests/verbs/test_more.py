"""`train --more N`: a finished run goes on with its optimiser state, can be interrupted, and refuses what it cannot continue."""

import json
from pathlib import Path

import pytest

from diffusecli.prompts.config import AlgConfig, Config
from diffusecli.prompts.config_files import read_config
from diffusecli.system.errors import InputError, InterruptedRun
from diffusecli.training.schedule import WARM_UP, rate_share
from diffusecli.verbs.train import plan, train
from tests.verbs.test_resume import interrupt_at


@pytest.fixture
def config(tiny_model_folder, prompt_file, tmp_path):
    def make(name="run", **fields):
        algorithm = {"n_iters": 8, "learning_rate": 0.02, **fields.pop("alg_config", {})}
        prompts = [str(prompt_file(f"{n}.json", request=f"Say {n}.", targets=["{a}", "{b}", "{cd}"])) for n in range(2)]
        return Config.model_validate({
            "model": str(tiny_model_folder), "train_prompts": prompts, "test_prompts": [], "output_dir": str(tmp_path / name),
            "alg_config": algorithm, "device": "cpu", "lora": {"dropout": 0.1}, "retain": False, "save_every": 3, **fields,
        })  # fmt: skip

    return make


def quietly(config, **more):
    seen = []
    said = []
    done = train(config, report=seen.append, notice=said.append, **more)
    return done, seen, said


def adapter(config):
    return Path(config.output_dir, "adapter_model.safetensors").read_bytes()


def manifest(config):
    return json.loads(Path(config.output_dir, "run.json").read_text())


def test_a_finished_run_goes_on_from_its_weights_figures_and_moments(config):
    first, seen, _ = quietly(config())
    assert Path(config().output_dir, "state.safetensors").is_file()
    done, later, said = quietly(config(), more=5)
    assert f"{done.run.path}: continuing after 8 iterations, 5 more" in said
    assert [iteration.iteration for iteration in later] == [9, 10, 11, 12, 13]
    assert {iteration.of for iteration in later} == {13}
    assert len(done.run.metrics.read_text().splitlines()) == 13
    assert later[0].step == seen[-1].step + 2
    assert max(iteration.mean_kl for iteration in later) < seen[-2].mean_kl  # it does not start again
    assert done.before.kl == first.before.kl
    assert (manifest(config())["iterations"], manifest(config())["continued_at"]) == (13, [8])
    assert done.seconds > first.seconds
    samples = Path(config().output_dir, "gen.lora.json")
    samples.write_text("{}")
    _, _, said = quietly(config(), more=1)
    assert manifest(config())["continued_at"] == [8, 13]
    assert f"{samples}: is deleted, because its answers are those of the adapter before" in said
    assert not samples.exists()


def test_the_learning_rate_starts_anew_with_a_warm_up(config):
    quietly(config())
    _, later, _ = quietly(config(), more=10)
    wanted = [0.02 * rate_share(AlgConfig(), 2 * n, 20, trained=True) for n in range(10)]
    assert [iteration.learning_rate for iteration in later] == pytest.approx(wanted)
    assert later[0].learning_rate < later[1].learning_rate < later[2].learning_rate


def test_a_warm_up_of_its_own_is_for_weights_that_are_trained():
    assert rate_share(AlgConfig(), 0, 20) == 1
    assert rate_share(AlgConfig(), 0, 20, trained=True) == pytest.approx(1 / (WARM_UP * 20 + 1))
    assert rate_share(AlgConfig(), 4, 20, trained=True) == 1
    assert (
        rate_share(AlgConfig(warmup=0.5), 0, 20) == rate_share(AlgConfig(warmup=0.5), 0, 20, trained=True) == pytest.approx(1 / 11)
    )
    assert rate_share(AlgConfig(warmup=0.0), 0, 20, trained=True) == 1


def test_an_adapter_that_is_loaded_is_warmed_up_too(config):
    quietly(config())
    _, seen, _ = quietly(config("other", load_model=True, ckpt_dir=config().output_dir, alg_config={"n_iters": 10}))
    assert seen[0].learning_rate == pytest.approx(0.02 * rate_share(AlgConfig(), 0, 20, trained=True))


@pytest.mark.parametrize("pass_number", [0, 1, 7])
def test_after_ctrl_c_the_same_command_ends_in_the_same_bits(config, monkeypatch, pass_number):
    for name in ("whole", "cut"):
        quietly(config(name))
    expected = quietly(config("whole"), more=6)[0]
    with monkeypatch.context() as during:
        interrupt_at(during, pass_number)
        with pytest.raises(InterruptedRun, match="of 14 iterations"):
            quietly(config("cut"), more=6)
    assert manifest(config("cut"))["iterations"] == 8  # the finished run is whole until the other one is
    for other, was in ((0, "with --more 6"), (7, "with --more 6")):
        with pytest.raises(
            InputError, match=f"was interrupted, started {was}. Resume it first: `diffuse train .*config.yaml --more 6`"
        ):
            quietly(config("cut"), more=other)
    done, _, _ = quietly(config("cut"), more=6)
    assert adapter(config("cut")) == adapter(config("whole"))
    assert done.after.kl == expected.after.kl
    assert (manifest(config("cut"))["iterations"], manifest(config("cut"))["continued_at"]) == (14, [8])


def test_a_training_that_lacks_its_figures_is_resumed_by_the_command_in_the_error(config, monkeypatch):
    """As after Ctrl-C between the last checkpoint and the measuring."""
    quietly(config())

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr("diffusecli.verbs.train._announce_end", interrupted)
        with pytest.raises(InterruptedRun, match="The training is complete and its last checkpoint is saved"):
            quietly(config(), more=6)
    folder = config().output_dir
    with pytest.raises(InputError) as caught:
        quietly(config(), more=7)
    assert str(caught.value) == (
        f"{folder}: contains a training that was interrupted, started with --more 6. "
        f"Resume it first: `diffuse train {folder}/config.yaml --more 6`"
    )
    quietly(read_config(Path(folder, "config.yaml")), more=6)
    assert manifest(config())["iterations"] == 14


def interrupted_while_sampling(config, monkeypatch, **more):
    """Train, and interrupt it when it draws its samples."""
    from diffusecli.sampling.counting import CountingSampler

    with monkeypatch.context() as during:

        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        during.setattr(CountingSampler, "draw", interrupted)
        with pytest.raises(InterruptedRun, match="The training is complete and the adapter is saved"):
            quietly(config, **more)


def test_after_ctrl_c_while_it_draws_samples_the_same_command_draws_the_rest(config, monkeypatch):
    wanted = config(test_prompts=config().train_prompts)
    quietly(wanted)
    before = Path(wanted.output_dir, "gen.json").read_bytes()
    interrupted_while_sampling(wanted, monkeypatch, more=6)
    done, later, _ = quietly(wanted, more=6)
    assert later == []  # the training was complete
    assert done.reason == "finished 14 iterations (6 more)"
    assert manifest(wanted)["iterations"] == 14
    assert Path(wanted.output_dir, "gen.json").read_bytes() != before


def test_a_training_without_its_samples_is_finished_and_goes_on(config, monkeypatch):
    wanted = config(test_prompts=config().train_prompts)
    interrupted_while_sampling(wanted, monkeypatch)
    said = []
    assert plan(wanted, said.append, more=4).steps == 8
    assert plan(wanted, said.append).steps == 16
    folder = wanted.output_dir
    missing = f"{folder}: contains a finished training whose samples are missing. `diffuse train`"
    assert said == [f"{missing} goes on from there; --force restarts it", f"{missing} draws them; --force restarts it"]
    faster = config(test_prompts=wanted.train_prompts, alg_config={"learning_rate": 0.03})
    done, later, said = quietly(faster, more=4)
    assert f"{folder}: continuing after 8 iterations, 4 more" in said
    assert [iteration.iteration for iteration in later] == [9, 10, 11, 12]
    assert done.reason == "finished 12 iterations (4 more)"
    assert manifest(wanted)["continued_at"] == [8]
    assert Path(folder, "gen.json").is_file()
    assert not list(Path(folder).glob("checkpoint-*"))


def test_it_ends_in_the_same_bits_as_one_that_has_its_samples(config, monkeypatch):
    whole, cut = (config(name, test_prompts=config().train_prompts) for name in ("whole", "cut"))
    quietly(whole)
    interrupted_while_sampling(cut, monkeypatch)
    for wanted in (whole, cut):
        quietly(wanted, more=2)
    assert adapter(whole) == adapter(cut)


def test_the_samples_of_a_continuation_are_drawn_without_more_and_other_iterations_go_on(config, monkeypatch):
    wanted = config(test_prompts=config().train_prompts)
    quietly(wanted)
    interrupted_while_sampling(wanted, monkeypatch, more=2)
    _, later, said = quietly(wanted)
    assert later == []
    assert f"{wanted.output_dir}: the training is complete and saved. Drawing the missing samples" in said
    assert Path(wanted.output_dir, "gen.json").is_file()
    interrupted_while_sampling(wanted, monkeypatch, more=2)
    _, later, _ = quietly(wanted, more=3)
    assert [iteration.iteration for iteration in later] == [13, 14, 15]


def test_samples_of_the_shorter_training_go(config):
    wanted = config(test_prompts=config().train_prompts)
    quietly(wanted)
    assert Path(wanted.output_dir, "gen.json").is_file()
    silent = wanted.model_copy(update={"generate": False})
    quietly(silent, more=1)
    assert not Path(wanted.output_dir, "gen.json").exists()


def test_when_and_how_fast_it_stops_may_change_and_nothing_else(config):
    quietly(config())
    quietly(
        config(alg_config={"learning_rate": 0.001, "schedule": "constant", "warmup": 0.0, "target_kl": 1e-9, "n_iters": 3}), more=1
    )
    with pytest.raises(
        InputError, match=r"run: was trained with different settings: seed \(was 0, now 1\)\. Restore them to train further"
    ):
        quietly(config(seed=1), more=1)
    assert manifest(config())["iterations"] == 9


def test_what_cannot_go_on_is_refused(config):
    with pytest.raises(InputError, match="--more 3 continues a finished run, and there is none"):
        quietly(config(), more=3)
    quietly(config())
    state = Path(config().output_dir, "state.safetensors")
    moments = state.read_bytes()
    state.unlink()
    with pytest.raises(InputError, match=r"is missing, and --more 3 continues from it.*load_model: true"):
        quietly(config(), more=3)
    state.write_bytes(moments)
    whole = Path(config().output_dir, "run.json").read_text()
    Path(config().output_dir, "run.json").write_text(whole.replace('"steps": 16', '"steps": 15'))
    with pytest.raises(InputError, match="belongs to another training than the adapter"):
        quietly(config(), more=3)
    Path(config().output_dir, "run.json").write_text(whole)
    state.write_bytes(b"junk")
    with pytest.raises(InputError, match=r"cannot be read\. To train the adapter further without it, set load_model: true"):
        quietly(config(), more=3)
    state.write_bytes(moments)
    with pytest.raises(InputError, match="--force starts again, and --more continues"):
        quietly(config(), more=3, force=True)
    Path(config().output_dir, "adapter_model.safetensors").write_bytes(b"another")
    with pytest.raises(InputError, match="its adapter is not the one that was trained here"):
        quietly(config(), more=3)


def test_an_interrupted_training_is_resumed_before_it_goes_on(config, monkeypatch):
    with monkeypatch.context() as during:
        interrupt_at(during, 3)
        with pytest.raises(InterruptedRun):
            quietly(config())
    with pytest.raises(
        InputError, match=r"was interrupted, started without --more\. Resume it first: `diffuse train \S+config.yaml`"
    ):
        quietly(config(), more=2)


def test_the_plan_of_a_continuation_counts_its_own_steps(config):
    quietly(config())
    said = []
    assert plan(config(), said.append, more=5).steps == 10
    assert said == []


def test_the_command_continues_and_says_how_to_go_on(config, in_process, tmp_path):
    wanted = config(alg_config={"n_iters": 1})
    file = tmp_path / "c.yaml"
    file.write_text(wanted.to_yaml())
    first = in_process("train", file)
    assert first.returncode == 0, first.stderr
    assert f"Train longer: `diffuse train {wanted.output_dir}/config.yaml --more 1`" in " ".join(first.stderr.split())
    assert in_process("train", file, "--more", "2").returncode == 0
    assert manifest(wanted)["iterations"] == 3
    both = in_process("train", file, "--more", "2", "--force")
    assert both.returncode == 2
    assert "--force starts again, and --more continues" in both.stderr


def test_a_continuation_that_diverges_leaves_the_finished_run(config):
    quietly(config())
    before = adapter(config())
    with pytest.raises(InputError, match=r"The finished run is unchanged\. Use --more with a lower alg_config\.learning_rate"):
        quietly(config(alg_config={"learning_rate": 1e30}), more=3)
    assert adapter(config()) == before
    assert manifest(config())["iterations"] == 8


def test_a_training_interrupted_before_warmup_was_auto_resumes(config, monkeypatch):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    from diffusecli.runs.run_dir import RunDir
    from diffusecli.training.checkpoints import newest_checkpoint

    with monkeypatch.context() as during:
        interrupt_at(during, 3)
        with pytest.raises(InterruptedRun):
            quietly(config())
    state = RunDir(newest_checkpoint(RunDir(Path(config().output_dir)))).state
    with safe_open(state, framework="pt") as file:
        metadata = file.metadata()
    assert '"warmup": "auto"' in metadata["progress"]
    save_file(load_file(state), state, {**metadata, "progress": metadata["progress"].replace('"warmup": "auto"', '"warmup": 0.0')})
    assert quietly(config())[0].reason == "finished 8 iterations"
