"""Every command that `evaluate` recommends is accepted in the state of the run in which it is recommended."""

import json
import re
import shlex
from pathlib import Path

import pytest

from diffusecli.files.locks import only_writer
from tests.verbs.test_resume import interrupt_at

CONFIG = """\
model: {model}
train_prompts: [p.json]
test_prompts: [p.json]
output_dir: results/run
retain: off
device: cpu
save_every: 1
generate: false
alg_config: {{n_iters: 3}}
"""
KEPT = "diffuse train results/run/config.yaml"
MOVED = f"{KEPT} --set output_dir=results/run"
SAMPLE = "diffuse sample results/run"
EVALUATE = ("evaluate", "results/run")


@pytest.fixture
def folder(tmp_path, monkeypatch, tiny_model_folder, prompt_file):
    monkeypatch.chdir(tmp_path)
    prompt_file("p.json")
    (tmp_path / "c.yaml").write_text(CONFIG.format(model=tiny_model_folder))
    return tmp_path


@pytest.fixture
def run(in_process):
    def run(*words):
        done = in_process(*words)
        assert done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture
def interrupted(in_process):
    """Run a command that is interrupted in its second training step."""

    def run(*words):
        with pytest.MonkeyPatch.context() as patched:
            interrupt_at(patched, 1)
            assert in_process(*words).returncode == 130

    return run


def recommended(done):
    """The commands in an error or in lines `next:`, except those that only show more of the same."""
    return re.findall(r"`(diffuse (?:train|sample) [^`]+)`", " ".join(done.stderr.split()))


def move():
    """As if the run had been trained in another folder, and then moved."""
    config = Path("results/run/config.yaml")
    config.write_text(config.read_text().replace("output_dir: results/run", "output_dir: results/other"))


def untrained(folder, run, interrupted):
    return ["diffuse train c.yaml"]


def empty(folder, run, interrupted):
    Path("results/run").mkdir(parents=True)
    return ["diffuse train c.yaml"]


def config_only(folder, run, interrupted):
    Path("results/run").mkdir(parents=True)
    Path("results/run/config.yaml").write_text(Path("c.yaml").read_text())
    return [KEPT]


def interrupted_training(folder, run, interrupted):
    interrupted("train", "c.yaml")
    return [KEPT]


def untuned_only(folder, run, interrupted):
    run("sample", "c.yaml", "--mode", "untuned", "-n", "5", "--max-new-tokens", "4")
    return ["diffuse train c.yaml"]


def interrupted_after_an_untuned_sampling(folder, run, interrupted):
    untuned_only(folder, run, interrupted)
    interrupted("train", "c.yaml")
    return [KEPT]


def unsampled(folder, run, interrupted):
    run("train", "c.yaml")
    return [SAMPLE]


def unsampled_and_without_an_adapter(folder, run, interrupted):
    run("train", "c.yaml")
    Path("results/run/adapter_model.safetensors").unlink()
    return [f"{KEPT} --force"]


def sampled(folder, run, interrupted):
    run("train", "c.yaml")
    run("sample", "results/run", "-n", "50", "--max-new-tokens", "4")
    return [f"{KEPT} --more 3"]


def continued(folder, run, interrupted):
    sampled(folder, run, interrupted)
    interrupted("train", "c.yaml", "--more", "2")
    return [f"{KEPT} --more 2"]


def with_a_checkpoint_left(folder, run, interrupted):
    """As after Ctrl-C between the end of the training and the removal of its checkpoint."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("diffusecli.verbs.train.keep_state", lambda _: None)
        run("train", "c.yaml")
    run("sample", "results/run", "-n", "50", "--max-new-tokens", "4")
    return [KEPT]


def without_its_state(folder, run, interrupted):
    sampled(folder, run, interrupted)
    Path("results/run/state.safetensors").unlink()
    return []


def of_another_version(folder, run, interrupted):
    interrupted("train", "c.yaml")
    for state in Path("results/run").glob("checkpoint-*/state.safetensors"):
        state.write_bytes(b"")
    return [f"{KEPT} --force"]


def with_another_prompt(folder, run, interrupted):
    sampled(folder, run, interrupted)
    changed = json.loads(Path("p.json").read_text()) | {"weights": [3, 1]}
    Path("p.json").write_text(json.dumps(changed))
    return []


def moved(folder, run, interrupted):
    sampled(folder, run, interrupted)
    move()
    return [f"{MOVED} --more 3"]


def moved_and_interrupted(folder, run, interrupted):
    interrupted("train", "c.yaml")
    move()
    return [MOVED]


def interrupted_with_another_prompt(folder, run, interrupted):
    interrupted("train", "c.yaml")
    changed = json.loads(Path("p.json").read_text()) | {"weights": [3, 1]}
    Path("p.json").write_text(json.dumps(changed))
    return [f"{KEPT} --force"]


def moved_and_interrupted_with_another_prompt(folder, run, interrupted):
    interrupted_with_another_prompt(folder, run, interrupted)
    move()
    return [f"{MOVED} --force"]


STATES = (
    untrained, empty, config_only, untuned_only, interrupted_training, interrupted_after_an_untuned_sampling, unsampled, unsampled_and_without_an_adapter,
    sampled, continued, with_a_checkpoint_left, without_its_state, of_another_version, with_another_prompt, moved,
    moved_and_interrupted, interrupted_with_another_prompt, moved_and_interrupted_with_another_prompt,
)  # fmt: skip


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_what_is_recommended_is_accepted(folder, in_process, run, interrupted, state):
    expected = state(folder, run, interrupted)
    commands = recommended(in_process(*EVALUATE))
    assert commands == expected
    for command in commands:
        run(*shlex.split(command)[1:])
    assert not Path("results/other").exists(), "a moved run is trained where it is now"


def test_another_more_than_that_of_an_interrupted_training_is_answered_with_the_command_that_resumes_it(
    folder, in_process, run, interrupted
):
    sampled(folder, run, interrupted)
    interrupted("train", "c.yaml", "--more", "2")
    move()
    commands = recommended(in_process(*shlex.split(MOVED)[1:], "--more", "3"))
    assert commands == [f"{MOVED} --more 2"]
    run(*shlex.split(commands[0])[1:])
    assert not Path("results/other").exists()


def test_advice_for_a_checkpoint_that_cannot_be_read_says_so(folder, in_process, run, interrupted):
    sampled(folder, run, interrupted)
    interrupted("train", "c.yaml", "--more", "2")
    for state in Path("results/run").glob("checkpoint-*/state.safetensors"):
        state.write_bytes(b"")
    (line,) = (line for line in in_process(*EVALUATE).stderr.splitlines() if "diffuse train" in line)
    assert line == f"next: train again, because the checkpoint cannot be read: `{KEPT} --force`"


def test_a_run_without_samples_is_named_also_if_nothing_can_be_recommended(folder, in_process, run, interrupted):
    config_only(folder, run, interrupted)
    Path("p.json").unlink()
    assert in_process(*EVALUATE).stderr.startswith("diffuse: results/run: no samples found. p.json: does not exist. Check the path")


def test_a_config_that_cannot_be_read_whole_is_only_searched_for_its_folder(folder, in_process):
    """Its prompts on the hub are not fetched, so a wrong name of another run is still called wrong."""
    Path("c.yaml").write_text("model: m\noutput_dir: results/{config}-{model}\ntrain_prompts: ['hf://datasets/a/b/p.json']\n")
    Path("d.yaml").write_text("base: c.yaml\n")
    for name, says in (
        ("results/nope", "does not exist. Use a run directory, a folder of runs or a file of samples"),
        ("results/c-m", "is not trained yet. Run `diffuse train c.yaml` first"),
        ("results/d-m", "is not trained yet. Run `diffuse train d.yaml` first"),
    ):
        done = in_process("evaluate", name)
        assert (done.returncode, done.stderr.strip()) == (2, f"diffuse: {name}: {says}")


def test_train_and_evaluate_advise_the_same_command_after_more_iterations(folder, in_process, run):
    """As many iterations as the last time, and not as many as the first."""
    run("train", "c.yaml")
    trained = recommended(run("train", "c.yaml", "--more", "2"))
    run(*shlex.split(SAMPLE)[1:], "-n", "50", "--max-new-tokens", "4")
    assert trained[0] == f"{KEPT} --more 2"
    assert trained[1].startswith(f"{KEPT} --set lora.r=")
    assert recommended(in_process(*EVALUATE)) == trained[:1]


def test_the_report_has_the_next_step_of_the_terminal(folder, in_process, run):
    run("train", "c.yaml")
    run(*shlex.split(SAMPLE)[1:], "-n", "50", "--max-new-tokens", "4")
    done = in_process(*EVALUATE, "--html", "r.html")
    (line,) = (line for line in done.stderr.splitlines() if "next: train" in line)
    assert line == f"next: train further: `{KEPT} --more 3`"
    page = re.sub("</?span[^>]*>", "", Path("r.html").read_text())  # options do not break
    assert f"<li>next: train further: <code>{KEPT} --more 3</code></li>" in page


def test_samples_of_an_untuned_model_in_a_file_lead_to_its_training(folder, tiny_model_folder, in_process, run):
    run("sample", "--model", str(tiny_model_folder), "--prompt", "p.json", "-n", "20", "--max-new-tokens", "4", "-o", "s.json")
    assert recommended(in_process("evaluate", "s.json")) == [
        f"diffuse train --model {tiny_model_folder} --prompt p.json -o results/p"
    ]
    Path("results/p").mkdir(parents=True)
    assert recommended(in_process("evaluate", "s.json")) == []


@pytest.mark.parametrize("recorded", [True, False])
def test_a_run_whose_training_still_draws_samples_is_left_to_it(folder, in_process, run, recorded):
    """As while `train` is drawing its samples: the adapter and the last checkpoint are written, and the lock is held."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("diffusecli.verbs.train.keep_state", lambda _: None)
        run("train", "c.yaml")
    manifest = Path("results/run/run.json")
    if not recorded:  # no figures to show either
        figures = {"exact_kl", "exact_kl_test"}
        manifest.write_text(json.dumps({key: v for key, v in json.loads(manifest.read_text()).items() if key not in figures}))
    still = "`diffuse train` is still drawing samples" if not recorded else "it is still drawing samples (results/run)"
    with only_writer(Path("results/run"), Path("results/run/.lock")):
        done = in_process(*EVALUATE)
    assert still in " ".join(done.stderr.split())
    assert done.returncode == (0 if recorded else 2)
    assert "diffuse sample" not in done.stderr


def test_a_run_of_very_many_prompts_is_sampled_by_name(folder, prompt_file, in_process, run):
    names = [str(prompt_file(f"{n}.json", request=f"Say {n}.").relative_to(folder)) for n in range(33)]
    text = Path("c.yaml").read_text().replace("test_prompts: [p.json]", "test_prompts: []")
    Path("c.yaml").write_text(text.replace("train_prompts: [p.json]", f"train_prompts: {json.dumps(names)}"))
    run("train", "c.yaml")
    (command,) = recommended(in_process(*EVALUATE))
    assert command == "diffuse sample results/run --prompt 0.json"
    run(*shlex.split(command)[1:])
