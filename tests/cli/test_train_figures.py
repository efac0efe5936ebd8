"""What `train` prints when it is done: a line per prompt, or of many prompts a table by folder."""

import json
from pathlib import Path

import pytest

from diffusecli.cli.train import _larger, _print_figures
from diffusecli.prompts.prompt import Prompt
from diffusecli.runs.run_dir import RunDir
from diffusecli.training.questions import Exact
from diffusecli.training.record import Trained


@pytest.fixture(autouse=True)
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    Path("run", "adapter_config.json").write_text('{"r": 16}')
    write_config()


def write_config(**settings):
    config = {"model": "m", "train_prompts": ["p.json"], "output_dir": "run", **settings}
    Path("run", "config.yaml").write_text(json.dumps(config))


def trained_on(count):
    prompts = tuple(Prompt(request=str(i), targets=("a",), alias=f"mix/{'uv'[i % 2]}/{i}.json") for i in range(count))
    exact = Exact(prompts, tuple((0.01 * i, 0.9) for i in range(count)))
    return Trained(RunDir(Path("run")), "finished 60 iterations", exact, exact, Exact((), ()), 0.02, 12.0, seconds_now=7.5)


@pytest.mark.parametrize(("count", "listed"), [(24, 24), (25, 0)])
def test_more_than_24_prompts_are_summed_up(count, listed, capsys):
    _print_figures(trained_on(count), 9.0)
    lines = capsys.readouterr().out.splitlines()
    assert sum("exact KL" in line and line.startswith("mix/") for line in lines) == listed
    assert any(line.startswith("u ") for line in lines) == (not listed)
    assert lines[-2:] == [
        "drift from the base model on held-out instructions: 0.0200 nats per token (0.02 is small, 0.4 is large)", "run: finished 60 iterations in 7.5 s of training (12.0 s in total); this command took 9 s, with loading and figures",
    ]  # fmt: skip


def test_the_worst_and_the_median_of_each_folder_are_shown(capsys):
    """Of 25 prompts with KL 0, .01, …, .24 the even ones are in u: their median is .12, the worst .24; the odd ones end with .23."""
    _print_figures(trained_on(25), 9.0)
    cells = {line.split()[0]: line.split()[1:6] for line in capsys.readouterr().out.splitlines() if line[:2] in ("al", "u ", "v ")}
    assert cells == {
        "all": ["trained", "on", "25", "0.1200", "0.2400"],
        "u": ["trained", "on", "13", "0.1200", "0.2400"],
        "v": ["trained", "on", "12", "0.1200", "0.2300"],
    }


def test_a_larger_adapter_has_a_run_of_its_own(capsys):
    """Without its state, this run cannot go on. `tests/cli/test_advice.py` has one that can."""
    _print_figures(trained_on(24), 9.0)
    said = capsys.readouterr().err
    assert "Train longer" not in said
    assert "Train a larger adapter in a new run: `diffuse train run/config.yaml --set lora.r=32 --set output_dir=run-r32`" in said


@pytest.mark.parametrize(
    ("lora", "options"),
    [
        ({}, "--set lora.r=32 --set output_dir=run-r32"),
        ({"r": 16}, "--set lora.r=32 --set output_dir=run-r32"),
        ({"r": 16, "alpha": 8.0}, "--set lora.r=32 --set lora.alpha=16 --set output_dir=run-r32"),
        ({"r": 16, "alpha": 8.0, "rslora": True}, "--set lora.r=32 --set output_dir=run-r32"),
    ],
)
def test_the_larger_adapter_has_the_scale_of_the_smaller_one(lora, options):
    """Updates are scaled by alpha / r, which is 2 with auto and as configured otherwise."""
    write_config(lora=lora)
    assert _larger(RunDir(Path("run"))) == options


def test_a_larger_adapter_does_not_continue_from_the_smaller_one():
    write_config(load_model=True, ckpt_dir="earlier")
    assert _larger(RunDir(Path("run"))) == "--set load_model=false --set lora.r=32 --set output_dir=run-r32"
