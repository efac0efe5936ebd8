"""`train` with several configs or swept settings: runs in turn, finished ones left alone, one table."""

import json
import re
from pathlib import Path

import pytest

from diffusecli.prompts.config_sweep import combinations
from diffusecli.system.errors import InputError

CONFIG = """\
model: {model}
train_prompts: [p.json]
test_prompts: [p.json]
output_dir: results/{{config}}
retain: off
device: cpu
alg_config: {{n_iters: 1}}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch, tiny_model_folder, prompt_file):
    monkeypatch.chdir(tmp_path)
    prompt_file("p.json")
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text(CONFIG.format(model=tiny_model_folder))
    return tmp_path


def test_configs_are_trained_in_turn_and_end_with_a_table(folder, in_process):
    done = in_process("train", "a.yaml", "b.yaml")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    table = lines[lines.index("runs, on the prompt p") + 1 :]
    assert table[0].split() == ["exact", "exact", "on", "TVD", "of", "perfect", "follow"]
    assert table[1].split() == ["run", "KL", "target", "samples", "sampler", "target"]
    kls = [json.loads(Path("results", name, "run.json").read_text())["exact_kl"]["p.json"] for name in "ab"]
    assert [line.split()[:2] for line in table[3:5]] == [[name, f"{kl:.4f}"] for name, kl in zip("ab", kls, strict=True)]
    assert "next: `diffuse evaluate results/a results/b`" in done.stderr
    assert len(re.findall(r"; this run took \d+ s, with loading", done.stdout)) == 2
    assert "this command took" not in done.stdout


def test_finished_runs_of_several_are_left_as_they_are(folder, in_process):
    assert in_process("train", "a.yaml").returncode == 0
    before = Path("results/a/run.json").stat().st_mtime_ns
    done = in_process("train", "a.yaml", "b.yaml")
    assert done.returncode == 0
    assert "results/a: is finished, skipped. --force trains it again" in done.stderr
    assert Path("results/a/run.json").stat().st_mtime_ns == before
    assert Path("results/b/run.json").is_file()


def test_a_mistake_in_the_second_config_is_found_before_the_first_is_trained(folder, in_process):
    Path("b.yaml").write_text("modell: x\n")
    done = in_process("train", "a.yaml", "b.yaml")
    assert done.returncode == 2
    assert "unknown key 'modell'" in done.stderr
    assert not Path("results").exists()
    Path("b.yaml").write_text(Path("a.yaml").read_text().replace("{config}", "a"))
    done = in_process("train", "a.yaml", "b.yaml")
    assert "results/a: is the output_dir of two configs" in done.stderr


def test_a_sweep_trains_a_run_for_each_combination(folder, in_process):
    done = in_process("train", "a.yaml", "--sweep", "alg_config.learning_rate=1e-4,1e-3", "--sweep", "seed=0,1")
    assert done.returncode == 0
    names = ["learning_rate=1e-4,seed=0", "learning_rate=1e-4,seed=1", "learning_rate=1e-3,seed=0", "learning_rate=1e-3,seed=1"]
    assert sorted(path.name for path in Path("results/a").iterdir()) == sorted(names)
    settings = Path("results/a", names[2], "config.yaml").read_text()
    assert re.search(r"learning_rate: 0\.001\b", settings)
    assert "seed: 0" in settings
    assert [line.split()[0] for line in done.stdout.splitlines() if line.startswith("learning_rate")] == names


def test_a_plan_is_printed_for_each(folder, in_process):
    done = in_process("train", "a.yaml", "--sweep", "seed=3,4", "--dry-run")
    assert re.findall(r"^seed: (\d)", done.stdout, re.MULTILINE) == ["3", "4"]
    assert done.stdout.startswith("# settings of all 2 runs\nmodel: ")
    assert done.stdout.count("train_prompts:") == 1
    lines = done.stderr.splitlines()
    assert len(lines) == len(set(lines)), "a notice of both runs is printed once"
    assert not Path("results").exists()


def test_a_wrong_value_is_reported_at_its_sweep(folder, in_process):
    done = in_process("train", "a.yaml", "--set", "device=cpu", "--sweep", "alg_config.n_iters=1,x")
    assert done.returncode == 2
    assert "--sweep alg_config.n_iters=\"x\": 'alg_config.n_iters' must be a whole number" in done.stderr
    assert "--set" not in done.stderr
    done = in_process("train", "a.yaml", "--set", "alg_config.n_iters=x", "--sweep", "seed=1,2")
    assert "--set alg_config.n_iters=x: 'alg_config.n_iters' must be a whole number" in done.stderr


@pytest.mark.parametrize(
    ("sweeps", "message"),
    [
        (["seed"], "--sweep seed: write KEY=VALUE,VALUE"),
        (["seed="], "--sweep seed=: write KEY=VALUE,VALUE"),
        (["a.r=1", "a.r=2"], "--sweep a.r: is given twice"),
        (
            ["model=a/b,a b"],
            "--sweep: two combinations have the name model=a-b. Give each value once. Values that differ in signs only",
        ),
        (["seed=1,1"], "--sweep: two combinations have the name seed=1"),
        (["seed=1,]"], "the values cannot be read"),
        (["seed=2020-01-01,2"], "the values cannot be read"),
        (["seed=] #"], "has no values"),
        (["output_dir=a,b"], "the folders are named by the other settings"),
    ],
)
def test_sweeps_that_make_no_sense_are_refused(sweeps, message):
    with pytest.raises(InputError, match=re.escape(message)):
        combinations(sweeps)


def test_names_tell_settings_of_the_same_last_part_apart():
    (one,) = combinations(["a.r=1", "b.r=x/y z"])
    assert one.name == "a.r=1,b.r=x-y-z"
    assert [one.name for one in combinations(["rate=-1,1"])] == ["rate=-1", "rate=1"]


def test_long_values_that_differ_only_at_their_ends_have_names_of_their_own():
    beginning = "a request that is longer than forty characters and ends in "
    names = [one.name for one in combinations([f"system='{beginning}a','{beginning}b',short"])]
    assert len(set(names)) == 3
    assert names[2] == "system=short"
    assert all(name.startswith("system=a-request-that-is-longer-than-f") and len(name) == len("system=") + 40 for name in names[:2])
    assert names[:2] == [one.name for one in combinations([f"system='{beginning}a','{beginning}b'"])]  # whatever else is swept
