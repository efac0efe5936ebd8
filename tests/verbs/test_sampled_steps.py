"""Training whose steps draw some targets of a prompt: it learns all of them, says what is estimated, and goes on to the bit."""

import itertools
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from safetensors.torch import load_file

from diffusecli.models.encoding import encode_prompt
from diffusecli.models.loading import load_model
from diffusecli.models.lora import load_adapter
from diffusecli.models.source import ModelSource
from diffusecli.prompts.config import AlgConfig, Config
from diffusecli.prompts.prompt import Draws, Prompt
from diffusecli.prompts.prompt_files import read_prompt
from diffusecli.runs.iteration import Iteration
from diffusecli.system.errors import InterruptedRun
from diffusecli.training import loop, visits
from diffusecli.training.loss import score
from diffusecli.training.questions import figures_of
from diffusecli.training.rows_pass import RowsPass
from diffusecli.training.schedule import reason_to_stop
from diffusecli.verbs.train import GENERATIONS, plan, train
from tests.verbs.test_resume import interrupt_at

NUMBERS = [f"{{{number}}}" for number in range(100, 160)]


@pytest.fixture
def config(tiny_model_folder, prompt_file, tmp_path):
    def make(name="run", targets=NUMBERS, **algorithm):
        prompt = str(prompt_file("p.json", targets=targets))
        return Config.model_validate({
            "model": str(tiny_model_folder), "train_prompts": [prompt], "test_prompts": [], "output_dir": str(tmp_path / name),
            "alg_config": {"n_iters": 60, "learning_rate": 0.02, "targets_per_step": 8, **algorithm}, "device": "cpu",
            "retain": False, "generate": False, "save_every": 1,
        })  # fmt: skip

    return make


def tvd(q, p):
    """With all that is off target as one more outcome."""
    return (np.abs(q - p).sum() + 1 - q.sum()) / 2


def quietly(config):
    seen = []
    return train(config, report=seen.append, notice=lambda _: None), seen


def test_as_much_is_learnt_of_all_targets_from_eight_a_step_as_from_all(config):
    (few, seen), (whole, _) = (quietly(config(f"of-{count}", n_iters=80, targets_per_step=count)) for count in (8, 60))
    (prompt,) = few.after.prompts
    assert seen[0].kl[prompt.alias] > 5
    assert few.after.kl[prompt.alias] < 2.5  # the tiny model comes no closer than 1.8
    assert few.after.kl[prompt.alias] == pytest.approx(whole.after.kl[prompt.alias], abs=0.4)
    assert few.after.estimated == {}


def test_the_figures_of_the_end_are_those_of_rows(config):
    setting = config(n_iters=5)
    done, _ = quietly(setting)
    base = load_model(ModelSource(setting.model, device="cpu"), print)
    load_adapter(base, done.run.path)
    encoded = encode_prompt(read_prompt(setting.train_prompts[0]), base.chat)
    found = figures_of(encoded, score(base.model, encoded, RowsPass()).log_probs)
    assert done.after.figures[0] == pytest.approx((found.kl, found.on_target), abs=1e-4)


def test_estimates_come_with_their_errors_and_are_near_the_exact_figures(config):
    done, seen = quietly(config(n_iters=12, exact_every=1, schedule="constant", learning_rate=1e-4))
    (prompt,) = done.after.prompts
    assert all(iteration.kl_error.keys() == {prompt.alias} for iteration in seen)
    assert all(iteration.loss_error == iteration.mean_kl_error == iteration.kl_error[prompt.alias] > 0 for iteration in seen)
    # exact figures are found after the step, estimates before it; the steps are tiny
    gaps = [after.kl[prompt.alias] - before.exact_kl[prompt.alias] for before, after in itertools.pairwise(seen)]
    errors = [after.kl_error[prompt.alias] for after in seen[1:]]
    assert abs(np.mean(gaps)) < 5 * np.linalg.norm(errors) / len(
        errors
    )  # draws follow from the prompt's path, a new one in every test run
    assert np.std(gaps) < 3 * np.mean(errors)
    lines = [json.loads(line) for line in (done.run.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["exact_kl"] for line in lines] == [iteration.exact_kl for iteration in seen]
    assert done.before.kl[prompt.alias] == pytest.approx(seen[0].kl[prompt.alias], abs=6 * seen[0].mean_kl_error)


def test_an_interrupted_run_draws_the_same_targets_when_it_goes_on(config, monkeypatch):
    whole, _ = quietly(config("whole", n_iters=6))
    with monkeypatch.context() as patch, pytest.raises(InterruptedRun):
        interrupt_at(patch, 3)
        quietly(config(n_iters=6))
    resumed, _ = quietly(config(n_iters=6))
    first, second = (load_file(done.run.path / "adapter_model.safetensors") for done in (whole, resumed))
    assert all((first[name] == second[name]).all() for name in first)
    assert resumed.before == whole.before


def test_a_tree_too_large_to_measure_is_estimated_in_the_end_and_says_so(config, monkeypatch):
    monkeypatch.setattr(loop, "_MOST_PREFIXES", 50)
    monkeypatch.setattr(loop, "_PATHS_AFTER", 30)
    done, _ = quietly(config(n_iters=3))
    (prompt,) = done.after.prompts
    assert done.after.estimated[prompt.alias] > 0
    manifest = done.run.read_manifest()
    assert manifest["kl_errors"] == done.after.estimated
    assert manifest["kl_errors_before"] == done.before.estimated == {}  # 256 paths are more than there are


def test_steps_draw_by_themselves_where_a_tree_is_large(config, monkeypatch):
    def drawn(settings, targets):
        setting = config(targets=targets, **settings)
        base = load_model(ModelSource(setting.model, device="cpu"), print)
        return visits.drawn_in_a_step(setting.alg_config, encode_prompt(read_prompt(setting.train_prompts[0]), base.chat))

    assert drawn({"targets_per_step": "auto"}, NUMBERS) is None
    assert drawn({"targets_per_step": 60}, NUMBERS) is None
    assert drawn({"targets_per_step": 59}, NUMBERS) == 59
    assert drawn({"targets_per_step": 8}, [["{a}", "a"], *NUMBERS]) is None  # spellings need the whole tree
    monkeypatch.setattr(visits, "_LARGE_TREE", 50)
    assert drawn({"targets_per_step": "auto"}, [*NUMBERS, *(f"{{{n}}}" for n in range(160, 200))]) == 64


def test_the_plan_counts_what_a_step_feeds(config):
    whole, few = (next(iter(plan(config(targets_per_step=count), print).tokens.values())) for count in (60, 8))
    assert few[2] < whole[2]
    assert few[3] == whole[3]  # rows would feed all


def test_estimates_stop_a_training_only_where_they_are_sure():
    seen = Iteration(1, 10, 1, 2.3, 2.0, {"p": 0.3}, {"p": 1.0}, None, 1e-3, 1.0, 1, 1.0, 1, mean_kl=0.3)
    unsure = Iteration(**{**vars(seen), "mean_kl_error": 0.05, "loss_error": 0.1})
    for settings in (AlgConfig(target_kl=0.35), AlgConfig(early_stop=True, gamma=0.2)):
        assert reason_to_stop(settings, seen)
        assert reason_to_stop(settings, unsure) is None
    assert reason_to_stop(AlgConfig(target_kl=0.4), unsure) == "target reached: mean KL 0.3000 (at most 0.3822) <= 0.4"


def test_several_draws_in_an_answer_are_trained_and_sampled(config, tmp_path, diffuse, monkeypatch):
    monkeypatch.setattr("diffusecli.verbs.train.GENERATIONS", replace(GENERATIONS, n_generations=200, max_new_tokens=16))
    letters = Prompt(request="Say letters.", targets=("a", "b", "c"), weights=(2, 1, 1), draws=Draws(n=2, wrap="{%s}"))
    (tmp_path / "two.json").write_text(letters.to_json())
    setting = config(n_iters=60, targets_per_step="auto").model_copy(
        update={"train_prompts": (str(tmp_path / "two.json"),), "test_prompts": (str(tmp_path / "two.json"),), "generate": True}
    )
    done, seen = quietly(setting)
    (prompt,) = done.after.prompts
    assert seen[0].optimal == pytest.approx(2 * prompt.entropy)
    assert done.after.kl[prompt.alias] < 0.3 < seen[0].kl[prompt.alias]
    # against all nine sequences, row by row
    base = load_model(ModelSource(setting.model, device="cpu"), print)
    load_adapter(base, done.run.path)
    nine = [
        (f"{{{a}, {b}}}", p * q / 16) for a, p in zip("abc", (2, 1, 1), strict=True) for b, q in zip("abc", (2, 1, 1), strict=True)
    ]
    listed = Prompt(request="Say letters.", targets=[text for text, _ in nine], weights=[p for _, p in nine], alias="listed")
    encoded = encode_prompt(listed, base.chat)
    exact = figures_of(encoded, score(base.model, encoded, RowsPass()).log_probs)
    assert done.after.kl[prompt.alias] == pytest.approx(exact.kl, abs=3 * done.after.estimated[prompt.alias] + 1e-3)
    shown = diffuse("evaluate", str(done.run.path), "--verbose").stdout
    assert re.search(r"TVD of draw 2 +0\.\d+  3 values", shown)
    assert re.search(r"association +0\.\d+  Cramér.s V of draw 1 and draw 2: (fits|too)", shown)
    # each draw given those before it, from the same nine
    (row,) = [
        r for r in json.loads(diffuse("evaluate", str(done.run.path), "--exact", "--json").stdout)["rows"] if r["mode"] == "lora"
    ]
    begun = encode_prompt(Prompt(request="Say letters.", targets=("{a,", "{b,", "{c,"), eos=False, alias="begun"), base.chat)
    first, both = (np.exp(score(base.model, some, RowsPass()).log_probs) for some in (begun, encoded))
    p = np.array([0.5, 0.25, 0.25])
    expected = [tvd(first, p), (p * [tvd(second, p) for second in both.reshape(3, 3) / first[:, None]]).sum()]
    assert [one["name"] for one in row["exact"]["wordings"]] == ["draw 1", "draw 2"]
    assert [one["tvd"] for one in row["exact"]["wordings"]] == pytest.approx(expected, abs=0.01)
    assert (
        sum(one["kl"] for one in row["exact"]["wordings"]) == pytest.approx(row["exact"]["kl"]) == pytest.approx(exact.kl, abs=0.01)
    )
    assert (
        "2 draws: each given the previous ones, estimated TVD median" in diffuse("evaluate", str(done.run.path), "--exact").stdout
    )


def test_a_long_measurement_at_the_end_is_announced(config, monkeypatch):
    from diffusecli.verbs import train as verb

    said = []
    train(config("quick", n_iters=2), report=lambda _: None, notice=said.append)
    assert not any("measuring" in line for line in said)
    monkeypatch.setattr(verb, "_LONG_WAIT", 0)
    train(config("slow", n_iters=2), report=lambda _: None, notice=said.append)
    assert [line for line in said if "measuring the exact figures of all targets, about 0 min" in line]
