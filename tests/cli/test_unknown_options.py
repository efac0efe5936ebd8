"""Errors of the command line and of files name what was given, and suggest only what is near and works."""

import pytest
import yaml


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("train", "c.yaml", "--iters", "5"),
            "No such option: --iters. Settings of a config have --set, e.g. --set alg_config.n_iters=5.",
        ),
        (("train", "c.yaml", "--gamma=2"), "e.g. --set alg_config.gamma=2."),
        (("train", "c.yaml", "--promt", "p.json"), "No such option: --promt. Did you mean --prompt?"),
        (("sample", "--temp", "2"), "No such option: --temp. Did you mean --temperature?"),
        (("train", "c.yaml", "--colour"), "No such option: --colour. See"),
        (("evaluate", "x", "--bogus", "1"), "No such option: --bogus. See"),
        (("evaluate", "x", "--max-tvd", "1.5x"), "--max-tvd 1.5x: must be a number. See"),
        (("evaluate", "x", "--max-tvd=y"), "--max-tvd y: must be a number. See"),
        (("sample", "-n", "x5"), "--n-generations x5: must be a whole number. See"),
        (("sample", "-nx5"), "--n-generations x5: must be a whole number. See"),
        (("init-prompt", "--binomial", "10", "x"), "--binomial x: must be a number. See"),
    ],
)
def test_an_option_that_is_wrong_is_named_with_what_was_meant(in_process, words, says):
    done = in_process(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


def test_train_reports_every_problem_of_a_config_in_the_order_of_lines(in_process, tmp_path):
    config = {"train_prompts": ["dicee.json"], "output_dir": 3, "model": "m", "alg_config": {"n_itrs": 3}, "seed": -1}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    lines = in_process("train", "c.yaml").stderr.splitlines()
    assert [line.split(":")[:3] for line in lines] == [["diffuse", " c.yaml", str(number)] for number in (2, 3, 6, 7)]
    assert "dicee.json does not exist" in lines[0]


def test_problems_that_do_not_depend_on_each_other_are_reported_together(in_process, tmp_path):
    (tmp_path / "d.json").write_text('{"request": "a", "targets": ["{a}", "{a}"],\n"weights": ["x", 1]}')
    said = in_process("validate", "d.json").stderr
    assert "duplicate target '{a}'" in said
    assert "'weights[0]' must be a number, not 'x'" in said


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        (
            "e.json",
            '{\n"request": "a",\n"targets": ["a"]\n',
            "e.json:4:1: invalid JSON: the bracket { of line 1 is not closed. Add }",
        ),
        ("e.json", '{"request": "a', "the text that starts here has no closing quote"),
        ("y.yaml", "model: m\ntrain_prompts: [a\nseed: 3\n", "y.yaml:2:16: invalid YAML: the bracket [ is not closed. Add ]"),
        ("y.yaml", "lora:\n    r: 2\n  alpha: 3\n", "y.yaml:3:3: invalid YAML: the indentation differs"),
        ("y.yaml", "model: m\n  output_dir: x\n", "y.yaml:2:13: invalid YAML: a colon where no key can be. Check the indentation"),
        ("y.yaml", "model: 'm\nseed: 3\n", "y.yaml:1:8: invalid YAML: the text that starts here has no closing quote"),
    ],
)
def test_syntax_errors_are_said_in_plain_words(in_process, tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    assert says in in_process("validate", name).stderr


def test_what_is_missing_is_not_confused_with_something_else(in_process, tmp_path):
    (tmp_path / "pets.csv").write_text("a\n")
    (tmp_path / "pets2.json").write_text("{}")
    (tmp_path / "results" / "dice").mkdir(parents=True)
    (tmp_path / "results" / "dice" / "config.yaml").write_text("model: m\n")
    (tmp_path / "raw.txt").write_text("a\nb\n")
    for words, says in (
        (("sample", "results/none"), "results/none: does not exist. Runs in results: results/dice"),
        (("export", "results/zzzz", "-o", "x"), "results/zzzz: does not exist. Runs in results: results/dice"),
        (("export", "results/dicee", "-o", "x"), "Did you mean 'results/dice'?"),
        (("evaluate", "raw.txt"), "raw.txt: is not a file of samples. For raw answers, name their prompt with --prompt"),
        (("evaluate", "nope.json"), "nope.json: does not exist. Use a run directory"),
        (("init-prompt", "--from", "nope.csv"), "nope.csv: does not exist"),
    ):
        done = in_process(*words)
        assert done.returncode == 2
        assert says in done.stderr
        assert "pets" not in done.stderr
