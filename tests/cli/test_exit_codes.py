"""Every exit code of every command, with real causes; the book and the code tell the same list."""

import re
from pathlib import Path

import pytest

from diffusecli.system import exits

COMMANDS = ("init-prompt", "validate", "train", "sample", "evaluate", "export")


@pytest.fixture
def here(trained, prompt_file, tmp_path, monkeypatch):
    """A trained run, a config of another one, prompts good and bad, a file where a folder should be."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cfg.yaml").write_text(trained.model_copy(update={"output_dir": "results/new"}).to_yaml())
    (tmp_path / "blocked.yaml").write_text(trained.model_copy(update={"output_dir": "file/new"}).to_yaml())
    prompt_file("bad.json", targets=["{a}", "{a}"])
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "file").write_text("")


CASES = [
    (0, "init-prompt --dice 2d6 -o new.json", "wrote new.json"),
    (0, "validate p.json cfg.yaml", ""),
    (0, "train cfg.yaml", ""),
    (0, "sample results/r1 -n 5", ""),
    (0, "evaluate results", ""),
    (0, "export results/r1 -o merged", ""),
    (1, "validate bad.json", "bad.json"),
    (1, "validate broken.json", "broken.json:1"),
    (1, "evaluate results/r1 --max-kl 0", "failed: "),
    (2, "init-prompt --binomial ten 0.2", "--binomial ten: must be a whole number"),
    (2, "init-prompt --choices a=-1,b=1", "weight"),
    (2, "validate nowhere.json", "does not exist"),
    (2, "validate", "Name at least one"),
    (2, "train nowhere.yaml", "does not exist"),
    (2, "train cfg.yaml --set gama=1", "unknown key"),
    (2, "train p.json", "p.json"),
    (2, "sample results/r1 --mode tuned", "--mode tuned: must be one of untuned, lora"),
    (2, "sample results/r1 --temperature 0", "must be above 0"),
    (2, "sample nowhere", "nowhere"),
    (2, "evaluate nowhere", "does not exist"),
    (2, "evaluate broken.json", "invalid JSON"),
    (2, "evaluate results --no-such-option", "No such option"),
    (2, "export nowhere -o merged", "nowhere: does not exist"),
    (2, "export results/r1 -o results", "was not written by `diffuse export`"),
    (3, "init-prompt --dice 2d6 -o file/new.json", "cannot be written"),
    (3, "validate p.json --model nobody/nothing", "offline mode is on. Unset HF_HUB_OFFLINE"),
    (3, "train blocked.yaml", "cannot be written"),
    (3, "sample results/r1 -n 5 -o file/new.json", "cannot be written"),
    (3, "sample --model nobody/nothing --request x", "offline mode is on. Unset HF_HUB_OFFLINE"),
    (3, "evaluate results/r1 --html file/new.html", "cannot be written"),
    (3, "export results/r1 -o file/merged", "cannot be written"),
]


@pytest.mark.slow
def test_every_command_ends_with_the_documented_code_and_says_why(here, in_process):
    assert in_process("sample", "results/r1", "-n", "5").returncode == 0  # what evaluate looks at
    found = {words: in_process(*words.split()) for _, words, _ in CASES}
    assert {words: done.returncode for words, done in found.items()} == {words: code for code, words, _ in CASES}
    assert {words: told for _, words, reason in CASES if reason not in (told := found[words].stderr)} == {}


@pytest.mark.parametrize(
    ("command", "verb", "words"),
    [
        ("init-prompt", "diffusecli.verbs.init_prompt.choose", "--dice 2d6"),
        ("validate", "diffusecli.verbs.validate.validate", "p.json"),
        ("train", "diffusecli.verbs.train.train", "cfg.yaml"),
        ("sample", "diffusecli.verbs.sample.sample", "results/r1"),
        ("evaluate", "diffusecli.verbs.evaluate.evaluate", "results/r1"),
        ("export", "diffusecli.verbs.export.export", "results/r1 -o merged"),
    ],
)
def test_every_command_that_is_interrupted_ends_with_130(here, monkeypatch, in_process, command, verb, words):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(verb, interrupted)
    done = in_process(command, *words.split())
    assert (done.returncode, "interrupted" in done.stderr) == (130, True)


def test_every_code_is_tried_with_every_command_that_can_end_with_it():
    tried = {(code, words.split()[0]) for code, words, _ in CASES}
    assert tried >= {(code, command) for code in (0, 2, 3) for command in COMMANDS}
    assert {(1, "validate"), (1, "evaluate")} <= tried


def test_the_page_of_exit_codes_lists_those_that_the_code_has():
    text = Path("docs/reference/exit-codes.md").read_text(encoding="utf-8")
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    known = {value for name, value in vars(exits).items() if name.startswith("EXIT_")}
    assert listed == known | {0}
