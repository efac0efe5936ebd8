"""Each command ends with the command that follows; errors and notices have their colours; a training needs no config file."""

import io
import sys

import pytest
import yaml

from diffusecli.system import terminal

TINY = ("--set", "alg_config.n_iters=1", "--set", "retain=false", "--set", "device=cpu", "--set", "generate=false")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("line", "text", "expected"),
    [
        (terminal.error_line, "diffuse: no", "\x1b[31mdiffuse: no\x1b[0m\n"),
        (terminal.notice_line, "warning: odd", "\x1b[33mwarning: odd\x1b[0m\n"),
        (terminal.notice_line, "wrote x", "\x1b[2mwrote x\x1b[0m\n"),
    ],
)
def test_lines_on_stderr_have_a_colour_on_a_terminal(monkeypatch, line, text, expected):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    line(text)
    assert sys.stderr.getvalue() == expected
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", Terminal())
    line(text)
    assert sys.stderr.getvalue() == f"{text}\n"


def test_later_lines_of_a_message_are_indented_on_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    said = "next: add `--verbose` for all figures, or `--html report.html` for charts"
    monkeypatch.setattr(sys, "stderr", Terminal())
    terminal.notice_line(said)
    assert sys.stderr.getvalue().splitlines() == ["next: add `--verbose` for all figures,", "  or `--html report.html` for charts"]
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    terminal.notice_line(said)
    assert sys.stderr.getvalue() == f"{said}\n", "one line for programs"


def test_colour_goes_by_the_variables_and_the_stream(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert terminal.has_colour(Terminal())
    assert not terminal.has_colour(io.StringIO())
    monkeypatch.setenv("TERM", "dumb")
    assert not terminal.has_colour(Terminal())
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert terminal.has_colour(io.StringIO())


def test_errors_of_the_command_line_look_like_ours(diffuse):
    done = diffuse("evaluate", "--bogus", "x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "diffuse: No such option: --bogus. See `diffuse evaluate --help`\n"
    done = diffuse("validat")
    assert (done.returncode, done.stderr.splitlines()[0][:38]) == (2, "diffuse: No such command 'validat'. Di")


def test_a_training_needs_a_model_prompts_and_a_folder_only(diffuse, prompt_file, tiny_model_folder, tmp_path):
    prompt = str(prompt_file("coin.json", targets=["{a}", "{b}"]))
    done = diffuse("train", "--model", str(tiny_model_folder), "--prompt", prompt, "-o", "run", *TINY)
    assert done.returncode == 0, done.stderr
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (kept["train_prompts"], kept["test_prompts"], kept["alg_config"]["n_iters"]) == ([prompt], [prompt], 1)
    assert "is far from its target (KL " in done.stderr
    assert done.stderr.splitlines()[-1] == "next: `diffuse sample run`, then `diffuse evaluate run`"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--model", "m", "-o", "run"), "--prompt is missing. Name a config, or a model, prompts and a folder"),
        (("c.yaml", "--model", "m"), "--model does not go with a config. Use --set"),
        ((), "nothing to train. Name a config, or a model, prompts and a folder"),
    ],
)
def test_half_a_training_is_refused(in_process, words, says):
    done = in_process("train", *words)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())


def test_commands_name_the_next_one(in_process, prompt_file, tiny_model_folder, tmp_path):
    made = in_process("init-prompt", "--uniform", "1", "3", "-o", str(tmp_path / "a b.json"))
    assert f"next: `diffuse train --model smollm2-135m-instruct --prompt '{tmp_path}/a b.json' -o 'results/a b'`" in made.stderr
    (tmp_path / "c.yaml").write_text(
        f"model: {tiny_model_folder}\ntrain_prompts: [{prompt_file('p.json', targets=['a', 'b'])}]\noutput_dir: x\n"
    )
    assert f"next: `diffuse train {tmp_path}/c.yaml`" in in_process("validate", str(tmp_path / "c.yaml")).stderr
    assert "next:" not in in_process("validate", str(tmp_path / "p.json")).stderr
    sampled = in_process(
        "sample",
        "--model",
        str(tiny_model_folder),
        "--prompt",
        str(tmp_path / "p.json"),
        "-n",
        "3",
        "--device",
        "cpu",
        "-o",
        str(tmp_path / "s.json"),
    )
    assert sampled.stderr.splitlines()[-1] == f"next: `diffuse evaluate {tmp_path / 's.json'}`"


def test_open_ended_answers_in_a_file_are_evaluated_next(in_process, tmp_path, tiny_model_folder, prompt_file):
    prompt_file(tmp_path / "open.json", request="Name an animal.", targets=[])
    drawn = ("sample", "--model", tiny_model_folder, "-n", "3", "--device", "cpu")
    for number, asked in enumerate((("--prompt", tmp_path / "open.json"), ("--request", "Name an animal."))):
        file = str(tmp_path / f"s{number}.json")
        done = in_process(*drawn, *asked, "-o", file)
        assert done.stderr.splitlines()[-1] == f"next: `diffuse evaluate {file}`"
        assert in_process("evaluate", file).returncode == 0
    assert "next:" not in in_process(*drawn, "--request", "Name an animal.").stderr


def test_init_prompt_writes_a_config_that_trains_on_the_prompt(in_process, tmp_path):
    done = in_process("init-prompt", "--uniform", "1", "3", "-o", "p.json", "--config", "c.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "next: `diffuse train c.yaml`"
    checked = in_process("validate", "c.yaml", "--strict")
    assert checked.returncode == 0, checked.stdout
    assert "sound: 1 prompt, 1 config" in checked.stdout
    from diffusecli.prompts.config_files import read_config

    config = read_config(tmp_path / "c.yaml")
    assert (config.train_prompts, config.test_prompts, config.output_dir) == (
        (str(tmp_path / "p.json"),), (str(tmp_path / "p.json"),), "results/c",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--config", "c.yaml"], "--config names its prompt by a file. Add -o FILE"),
        (["-o", "p.json", "--config", "c.json"], "a config is written as YAML"),
        (["-o", "p.json", "--config", "there.yaml"], "there.yaml: already exists"),
    ],
)
def test_a_config_that_cannot_be_written_is_refused_before_anything_is(in_process, tmp_path, words, says):
    (tmp_path / "there.yaml").write_text("mine\n")
    done = in_process("init-prompt", "--uniform", "1", "3", *words)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
    assert [path.name for path in tmp_path.glob("*.*")] == ["there.yaml"]


@pytest.mark.parametrize(("prompts", "sampled"), [(32, 32), (33, 0)])
def test_a_new_config_samples_a_few_prompts_and_not_very_many(in_process, tmp_path, prompts, sampled):
    table = tmp_path / "t.csv"
    table.write_text("group,answer\n" + "".join(f"{n},yes\n{n},no\n" for n in range(prompts)))
    done = in_process(
        "init-prompt", "--from", "t.csv", "--column", "answer", "--count", "--group-by", "group", "--request", "You are in {group}. {{yes}} or {{no}}?",
        "-o", "p", "--config", "c.yaml", "-q",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert in_process("validate", "c.yaml").returncode == 0
    from diffusecli.prompts.config_files import read_config

    assert len(read_config(tmp_path / "c.yaml").test_prompts) == bool(sampled)
    refused = in_process("sample", "c.yaml", "--mode", "untuned", "-n", "1", "--model", "none")
    assert ("33 train_prompts are too many to sample all" in " ".join(refused.stderr.split())) == (prompts == 33)
