"""The how-to on lm-eval with lm-eval itself, on a tiny model whose generation config bends its distribution.

Runs where DIFFUSE_LM_EVAL names a Python that has lm-eval, with peft: `DIFFUSE_LM_EVAL=lm-eval-env/bin/python pytest tests/book/test_lm_eval.py`.
"""

import json
import os
import re
import shlex
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from scipy.stats import chi2_contingency

from diffusecli.verbs.evaluate import Question, evaluate
from tests import ROOT
from tests.book.test_docs_commands import blocks, statements
from tests.commands import HANG

PYTHON = os.environ.get("DIFFUSE_LM_EVAL")
PAGE = list(blocks((ROOT / "docs/how-to/lm-eval.md").read_text(encoding="utf-8")))
TASKS = {block.title: block.text for block in PAGE if block.title.startswith("tasks/")}
COMMANDS = [words for block in PAGE if block.mark == "needs lm-eval" for words in statements(block.text) if words[0] == "lm_eval"]
N = 400
needs_lm_eval = pytest.mark.skipif(PYTHON is None, reason="DIFFUSE_LM_EVAL names no Python with lm-eval")


def printed(tasks, model):
    """The command of the page that runs these tasks on this model."""
    (found,) = (
        words
        for words in COMMANDS
        if words[words.index("--tasks") + 1] == tasks and words[words.index("--model_args") + 1] == model
    )
    return found


def run_lm_eval(words, folder, base):
    """Run a printed command with the tiny model as BASE; what it printed."""
    given = [word.replace("BASE", str(base)) for word in words[1:]]
    env = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(folder / "hf"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": "",
    }
    done = subprocess.run(
        [PYTHON, "-m", "lm_eval", *given, "--device", "cpu"], cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=HANG
    )  # fmt: skip
    assert done.returncode == 0, (shlex.join(words), done.stderr[-3000:])
    return done.stdout


@pytest.fixture
def folder(trained, tmp_path):
    """A run and its export under the names of the page, and its tasks: one token an answer, because a tiny model says anything."""
    (tmp_path / "results/r1").rename(tmp_path / "results/numbers")
    (tmp_path / "prompts/numbers").mkdir(parents=True)
    (tmp_path / "p.json").rename(tmp_path / "prompts/numbers/rng-0.json")
    (tmp_path / "tasks").mkdir()
    for name, text in TASKS.items():
        (tmp_path / name).write_text(text.replace("repeats: 300 ", f"repeats: {N} ").replace("max_gen_toks: 16", "max_gen_toks: 1"))
    return tmp_path


def answers_of_lm_eval(folder, prompt):
    (file,) = folder.glob("lm-eval-out/*/*/samples_numbers_*.jsonl")
    (row,) = evaluate([file], Question(prompt=prompt)).rows
    assert row.tally.n == N
    return Counter(json.loads(file.read_text())["resps"][0]), row


def answers_of_diffuse(in_process, folder):
    """Many answers of one token from this project's sampler."""
    done = in_process("sample", "results/numbers", "--prompt", "prompts/numbers/rng-0.json", "-n", "20000", "--max-new-tokens", "1",
                      "--format", "counts", "-o", "own.json", cwd=folder)  # fmt: skip
    assert done.returncode == 0, done.stderr
    (counts,) = json.loads((folder / "own.json").read_text()).values()
    return Counter(counts)


def p_of_same_law(some, others):
    """Chi-square test of two samples; texts that are expected less than ten times are one cell."""
    rare = lambda text: others[text] * N < 10 * others.total()  # noqa: E731 (one line)
    cells = Counter(), Counter()
    for cell, counts in zip(cells, (some, others), strict=True):
        for text, count in counts.items():
            cell[None if rare(text) else text] += count
    return chi2_contingency([[cell[text] for text in cells[1]] for cell in cells]).pvalue


@needs_lm_eval
@pytest.mark.parametrize("model", ["pretrained=BASE,peft=results/numbers", "pretrained=numbers-merged"])
def test_lm_eval_samples_the_distribution_of_an_adapter_and_of_an_export(model, folder, tiny_model_folder, in_process):
    if "merged" in model:
        assert in_process("export", "results/numbers", "-o", "numbers-merged", cwd=folder).returncode == 0
    run_lm_eval(printed("numbers", model), folder, tiny_model_folder)
    found, row = answers_of_lm_eval(folder, folder / "prompts/numbers/rng-0.json")
    assert row.settings_in_words == "at most 1 token, temperature 1"
    assert p_of_same_law(found, answers_of_diffuse(in_process, folder)) > 1e-4


@needs_lm_eval
def test_without_the_settings_of_the_page_the_generation_config_bends_it(folder, tiny_model_folder, in_process):
    task = folder / "tasks/numbers.yaml"
    task.write_text(re.sub(r"  (top_k|top_p|repetition_penalty): .*\n", "", task.read_text()))
    run_lm_eval(printed("numbers", "pretrained=BASE,peft=results/numbers"), folder, tiny_model_folder)
    found, _ = answers_of_lm_eval(folder, folder / "prompts/numbers/rng-0.json")
    assert p_of_same_law(found, answers_of_diffuse(in_process, folder)) < 1e-6


@needs_lm_eval
def test_the_task_with_choices_gives_an_accuracy(folder, tiny_model_folder):
    said = run_lm_eval(printed("abilities", "pretrained=BASE,peft=results/numbers"), folder, tiny_model_folder)
    assert re.search(r"abilities\s*\|.*\|acc\s*\|.*\|\s*0\.\d+\|", said)


def test_the_page_has_the_tasks_and_commands_that_are_run_here():
    assert set(TASKS) == {"tasks/numbers.yaml", "tasks/abilities.jsonl", "tasks/abilities.yaml"}
    assert "repeats: 300 " in TASKS["tasks/numbers.yaml"]
    assert "max_gen_toks: 16" in TASKS["tasks/numbers.yaml"]
    assert len(COMMANDS) == 4


def test_the_recorded_file_is_of_the_task_on_the_page():
    import yaml

    line = json.loads((Path(__file__).parents[1] / "evaluation/lm_eval/numbers.jsonl").read_text(encoding="utf-8"))
    task = yaml.safe_load(TASKS["tasks/numbers.yaml"])
    asked = task["generation_kwargs"]
    assert line["arguments"]["gen_args_0"]["arg_1"] == asked
    assert len(line["resps"][0]) == task["repeats"]
    assert line["doc"]["request"] == json.loads((ROOT / task["dataset_kwargs"]["data_files"]["test"]).read_text())["request"]
