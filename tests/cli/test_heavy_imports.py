"""Commands that need no model never load what models need."""

import json
import subprocess
import sys

from tests.commands import HANG

HEAVY = ("torch", "transformers", "peft", "accelerate", "pandas", "scipy")


def loaded_by(*words, heavy=HEAVY):
    """The heavy modules that a command imports, asked in a process of its own."""
    code = f"import sys; sys.argv = ['diffuse', *{words!r}]\ntry:\n from diffusecli.cli.app import main; main()\nexcept SystemExit: pass\nprint([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=HANG)
    return done.stdout.splitlines()[-1]


def test_help_and_validate_never_import_heavy_packages():
    assert loaded_by("--help") == "[]"
    assert loaded_by("validate", "prompts") == "[]"


def test_the_test_for_heavy_imports_can_fail():
    assert "torch" in loaded_by("sample", "--mode", "lora", "--config", "missing.yaml") or "scipy" in loaded_by(
        "init-prompt", "--binomial", "10", "0.2"
    )


def test_evaluating_answers_imports_neither_models_nor_scipy_stats(tmp_path):
    answers, report = tmp_path / "answers.txt", tmp_path / "report.html"
    answers.write_text("{1}\n{2}\n{2}\n")
    words = ("evaluate", str(answers), "--prompt", "prompts/numbers/rng-0.json", "--html", str(report))
    assert loaded_by(*words, heavy=(*HEAVY, "scipy.stats", "scipy.special")) == "['scipy', 'scipy.special']"
    assert report.is_file()


FIRST_STEP = """
import gc, sys
full = []
gc.callbacks.append(lambda phase, info: full.append(info["generation"]) if phase == "start" and info["generation"] == 2 else None)
from diffusecli.report.progress import TrainingProgress
def first(self, iteration):
    print(len(full), [name for name in {heavy!r} if name in sys.modules])
    sys.exit()
TrainingProgress.__call__ = first
sys.argv = ["diffuse", "train", {config!r}]
from diffusecli.cli.app import main
main()
"""


def test_a_training_reaches_its_first_step_without_full_collections_and_without_what_reports_and_tables_need(
    tmp_path, tiny_model_folder, prompt_file
):
    config = tmp_path / "config.yaml"
    prompt = str(prompt_file(targets=["a", "b"]))
    config.write_text(json.dumps({
        "model": str(tiny_model_folder), "train_prompts": [prompt], "output_dir": str(tmp_path / "run"), "alg_config": {"n_iters": 1},
        "retain": False, "generate": False,
    }))  # fmt: skip
    code = FIRST_STEP.format(heavy=("pandas", "scipy.stats", "vl_convert"), config=str(config))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=HANG)
    assert done.stdout.splitlines()[-1] == "0 []"
