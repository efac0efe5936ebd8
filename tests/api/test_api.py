"""The Python API: light to import, quiet, typed errors, results as data frames and as tables in which every text is escaped."""

import importlib
import json
import logging
import math
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pandas as pd
import pytest

import diffusecli as diffuse
from diffusecli.prompts.answers import Answers
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.notebook import html_table
from tests.commands import HANG

HEAVY = ("torch", "transformers", "numpy", "pandas", "pydantic", "yaml", "typer", "typing")
HOSTILE = "<script>alert('1')</script> & \"$x$\" \x1b[2J\u202e"


def loaded_by(code):
    """Which of the heavy modules a process has after it ran the code and nothing else: no site packages' own imports."""
    program = (
        f"import sys; before = set(sys.modules)\n{code}\nprint([m for m in {HEAVY!r} if m in sys.modules and m not in before])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=HANG)
    return done.stdout.splitlines()[-1]


def test_importing_the_package_loads_nothing_else():
    assert loaded_by("import diffusecli as diffuse; diffuse.__version__; dir(diffuse)") == "[]"


def test_prompts_and_the_functions_themselves_are_there_without_torch():
    used = (
        "die = diffuse.init_prompt('Toss a die.', uniform=(1, 6)); diffuse.train, diffuse.sample, diffuse.evaluate, diffuse.Config"
    )
    assert "torch" not in loaded_by(f"import diffusecli as diffuse; {used}")
    assert "torch" not in loaded_by(
        "import diffusecli as diffuse; diffuse.evaluate(answers=['a'], prompt=diffuse.Prompt(request='r', targets=['a', 'b']))"
    )


def test_the_test_for_light_imports_can_fail():
    assert "pydantic" in loaded_by("import diffusecli as diffuse; diffuse.Prompt")
    assert "torch" in loaded_by("import diffusecli.verbs.train")


def test_names_are_the_functions_whatever_modules_are_imported():
    for verb in ("train", "sample", "evaluate", "init_prompt", "validate", "export"):
        importlib.import_module(f"diffusecli.verbs.{verb}")
    for name in ("train", "sample", "evaluate", "init_prompt"):
        assert callable(getattr(diffuse, name))
        assert getattr(diffuse, name).__module__.startswith("diffusecli.api.")


def test_no_module_of_the_package_has_a_name_of_the_api():
    """Such a module would become the attribute of that name."""
    modules = {path.stem for path in Path(diffuse.__file__).parent.iterdir()}
    assert modules.isdisjoint(diffuse.__all__)


def test_every_name_is_there_and_no_other():
    assert set(diffuse.__all__) <= set(dir(diffuse))
    for name in diffuse.__all__:
        assert getattr(diffuse, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'tarin'"):
        diffuse.tarin  # noqa: B018 (looking it up is the point)


def test_type_checkers_and_editors_see_the_same_names():
    """The imports of `TYPE_CHECKING` lead where `__getattr__` leads, so mypy's types are those of the values."""
    source = Path(diffuse.__file__).read_text(encoding="utf-8")
    typed = {
        name.strip(): home
        for home, names in re.findall(r"^    from (\S+) import (.+)$", source, re.MULTILINE)
        for name in names.split(",")
    }
    assert typed == {name: home for home, names in diffuse._HOMES.items() for name in names}
    assert set(typed) == set(diffuse.__all__)
    assert (Path(diffuse.__file__).parent / "py.typed").is_file()


# prompts


def test_a_prompt_takes_a_distribution_as_values_of_python():
    assert diffuse.init_prompt(uniform=(1, 3)).targets == ("{1}", "{2}", "{3}")
    assert diffuse.init_prompt(uniform=(0, 1), step=0.5).targets == ("{0.0}", "{0.5}", "{1.0}")
    assert diffuse.init_prompt(binomial=(2, 0.5)).weights == (0.25, 0.5, 0.25)
    assert diffuse.init_prompt(geometric=0.5, tail=0.2).targets == ("{1}", "{2}", "{3}")
    assert diffuse.init_prompt(dice="2d2", wrap="%s").targets == ("2", "3", "4")
    assert len(diffuse.init_prompt(benford=True).targets) == 9
    assert diffuse.init_prompt("Toss a coin.", choices={"heads": 3, "tails": 1}).probabilities == (0.75, 0.25)
    assert diffuse.init_prompt("Toss a coin.", choices=["a=1", "b, c"]).targets == ("{a=1}", "{b, c}")


def test_a_request_stays_as_it_is_unless_the_form_is_asked_for(caplog):
    assert diffuse.init_prompt("Toss a die.", uniform=(1, 6)).request == "Toss a die."
    assert "does not ask for the form of the targets" in caplog.text
    caplog.clear()
    formed = diffuse.init_prompt("Toss a die.", uniform=(1, 6), form=True)
    assert formed.request.startswith("Toss a die. Output only the number between two curly braces")
    assert caplog.text == ""


def test_prompts_come_from_files_a_prompt_for_each_group(tmp_path):
    table = tmp_path / "seen.csv"
    table.write_text("who,what\na,x\na,x\na,y\nb,y\n")
    whole = diffuse.init_prompt("Which?", from_file=table, column="what", count=True)
    assert (whole.targets, whole.probabilities) == (("{x}", "{y}"), (0.5, 0.5))
    groups = diffuse.init_prompts("Which for {who}?", from_file=str(table), column="what", count=True, group_by="who")
    assert {key: prompt.request for key, prompt in groups.items()} == {("a",): "Which for a?", ("b",): "Which for b?"}
    assert groups["a",].probabilities == pytest.approx((2 / 3, 1 / 3))
    with pytest.raises(diffuse.InputError, match="call init_prompts"):
        diffuse.init_prompt("Which for {who}?", from_file=table, column="what", count=True, group_by=["who"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "name a distribution"),
        ({"binomail": (1, 0.5)}, "did you mean 'binomial'"),
        ({"binomial": 3}, "takes 2 values, e.g. --binomial 10 0.2"),
        ({"binomial": (2.5, 0.5)}, "whole numbers"),
        ({"binomial": ("x", 0.5)}, "Write it as in --binomial 10 0.2"),
        ({"choices": {"a": "x"}}, "is no number"),
        ({"uniform": (1, 3), "poisson": 4}, "exclude each other"),
        ({"from_file": "nowhere.csv"}, "nowhere.csv"),
        ({"uniform": (1, 3), "tail": 0.1}, "--tail does not go with --uniform"),
    ],
)
def test_wrong_options_are_typed_errors(options, words):
    with pytest.raises(diffuse.InputError, match=re.escape(words)):
        diffuse.init_prompt(**options)


def test_a_prompts_frame_has_the_normalised_weights():
    prompt = diffuse.Prompt(request="r", targets=["a", "b"], weights=[3, 1])
    found = prompt.to_frame()
    assert list(found.columns) == ["target", "weight"]
    assert list(found.itertuples(index=False, name=None)) == [("a", 0.75), ("b", 0.25)]


# tables of notebooks


def tags(table):
    return set(re.findall(r"<(/?\w+)", table))


def plain_tags():
    return tags(html_table({"a": ["x", 1.0]}, "c") + html_table({"a": range(61)}))


def test_hostile_texts_are_escaped_in_every_table(tmp_path):
    prompt = diffuse.Prompt(request=HOSTILE, targets=[HOSTILE, "b"], alias=HOSTILE)
    samples = diffuse.Samples(
        tmp_path / HOSTILE.replace("/", "-"), "lora", 1.0, 0, (prompt,), {HOSTILE: Answers({HOSTILE: 2, "<b>": 1})}
    )
    one = diffuse.TrainedPrompt(prompt, HOSTILE, True, 1.0, 0.5, 0.1, 0.9)
    trained = diffuse.Trained(tmp_path, HOSTILE, 1.0, None, (one,))
    judged = diffuse.evaluate(answers={HOSTILE: 2, "<img src=x>": 1}, prompt=prompt)
    for value in (prompt, samples, trained, judged):
        table = value._repr_html_()
        assert tags(table) <= plain_tags(), tags(table)
        assert "alert(&#x27;1&#x27;)" in table
        assert "\x1b" not in table
        assert "\u202e" not in table
        assert "<script>" in unescape(table)
        assert 'class="tex2jax_ignore mathjax_ignore"' in table  # no formula between dollars


def test_the_test_of_escaping_can_fail():
    assert not tags(HOSTILE) <= plain_tags()


def test_a_long_table_is_cut_and_says_so():
    table = html_table({"n": range(100)})
    assert table.count("<tr>") == 1 + 60
    assert "and 40 more rows" in table


def test_what_is_not_known_is_a_dash_and_numbers_are_short():
    assert re.findall(r"<td>(.*?)</td>", html_table({"x": [None, math.nan, 1 / 3, 7, True]})) == ["–", "–", "0.3333", "7", "True"]


# training, sampling, evaluation


def settings(folder, model):
    return {
        "model": model, "output_dir": folder / "run", "alg_config": {"n_iters": 60, "learning_rate": 0.02},
        "retain": False, "device": "cpu", "generate": False,
    }  # fmt: skip


COIN = diffuse.Prompt(request="Say a letter.", targets=["{a}", "{b}"], weights=[3, 1])


@pytest.fixture(scope="module")
def run(tiny_model_folder, tmp_path_factory):
    """A training of a prompt in memory, and another that is only measured."""
    other = diffuse.Prompt(request="Say a digit.", targets=["{1}", "{2}"])
    folder = tmp_path_factory.mktemp("api")
    return diffuse.train(train_prompts=COIN, test_prompts=[COIN, other], **settings(folder, tiny_model_folder))


def test_prompts_in_memory_train_and_are_kept_in_the_run(run):
    trained, measured = run.prompts
    assert (trained.trained_on, measured.trained_on) == (True, False)
    assert trained.alias == str(run.path / "prompts" / "say-a-letter.json")
    assert json.loads(Path(trained.alias).read_text())["targets"] == ["{a}", "{b}"]
    assert trained.prompt.digest == COIN.digest
    assert trained.exact_kl_before > 5
    assert trained.exact_kl < 0.05
    assert trained.exact_on_target > 0.95
    assert run.reason == "all 60 iterations done"
    assert run.retention_kl is None


def test_the_frame_of_a_training_has_what_the_manifest_records(run):
    found, manifest = run.to_frame().set_index("prompt"), RunDir(run.path).read_manifest()
    letter, digit = (str(run.path / "prompts" / name) for name in ("say-a-letter.json", "say-a-digit.json"))
    assert list(found.index) == [letter, digit]
    for name in ("exact_kl_before", "exact_kl", "exact_on_target_before", "exact_on_target"):
        assert found.loc[letter, name] == manifest[name][letter]
    assert found.loc[digit, "exact_kl"] == manifest["exact_kl_test"][digit]
    assert math.isnan(found.loc[digit, "exact_kl_before"])
    assert list(found["trained_on"]) == [True, False]


def test_the_frame_of_samples_adds_up(run):
    samples = diffuse.sample(run, prompts=COIN, n=200, max_new_tokens=6, seed=3)
    assert samples.path == run.path / "gen.lora.json"
    assert samples.prompts[0].alias == run.prompts[0].alias  # the same prompt, so the run's name for it
    found = samples.to_frame()
    written = json.loads(samples.path.read_text())[run.prompts[0].alias]
    assert dict(zip(found["answer"], found["count"], strict=True)) == pd.Series(written).value_counts().to_dict()
    assert found["count"].sum() == 200
    assert found["share"].sum() == pytest.approx(1)
    weights = found.set_index("answer")["weight"]
    assert (weights["{a}"], weights["{b}"]) == (0.75, 0.25)
    assert weights.drop(["{a}", "{b}"]).isna().all()
    again = diffuse.sample(run.path, prompts=[COIN], n=200, max_new_tokens=6, seed=3)
    assert again.counts == samples.counts


def test_shares_weights_and_cut_answers_of_a_frame_worked_out_by_hand():
    coin = diffuse.Prompt(request="r", targets=["a", "b"], weights=[3, 1], alias="p")
    counts = Answers({"a": 4, " b": 3, "x": 1, "b": 2}, unfinished={"a": 1, "b": 2})
    found = diffuse.Samples(Path("f"), "lora", 0.0, 3, (coin,), {"p": counts}).to_frame()
    rows = [
        (row.answer, row.count_, row.unfinished, row.share, row.weight)
        for row in found.rename(columns={"count": "count_"}).itertuples()
    ]
    assert rows[:2] == [("a", 4, 1, 0.4, 0.75), (" b", 3, 0, 0.3, 0.25)]
    assert rows[2][:4] == ("b", 2, 2, 0.2)
    assert rows[3][:4] == ("x", 1, 0, 0.1)
    assert math.isnan(rows[2][4])  # cut, so no target
    assert math.isnan(rows[3][4])


def test_answers_in_memory_are_judged_and_their_figures_derived_by_hand():
    """Of 10 answers 6 are a, 2 are b, 2 are neither: TVD = (|.6 - .75| + |.2 - .25| + .2) / 2 = .2."""
    found = diffuse.evaluate(
        answers=["a"] * 6 + [" b"] * 2 + ["x", "y"], prompt=diffuse.Prompt(request="r", targets=["a", "b"], weights=[3, 1])
    )
    (row,) = found.to_frame().to_dict("records")
    assert (row["prompt"], row["n"], row["valid"], row["tvd"]) == ("r", 10, pytest.approx(0.8), pytest.approx(0.2))
    targets = found.targets_to_frame()
    assert list(targets["count"]) == [6, 2]
    assert list(targets["share"]) == [0.75, 0.25]
    assert list(targets["weight"]) == [0.75, 0.25]
    assert list(targets["expected"]) == [6, 2]
    assert str(found).startswith("r (answers): off target")


def test_an_evaluations_frame_is_what_the_command_writes_as_csv(run, in_process):
    diffuse.sample(run, n=50, max_new_tokens=6)
    diffuse.sample(run, mode="untuned", n=50, max_new_tokens=6)
    done = in_process("evaluate", run.path, "--csv")
    (run.path / "figures.csv").write_text(done.stdout)
    written, found = pd.read_csv(run.path / "figures.csv"), diffuse.evaluate(run).to_frame()
    assert list(written.columns) == list(found.columns)
    assert len(found) == 4
    for name in ("n", "valid", "tvd", "excess_tvd", "exact_kl", "p_value"):
        assert found[name].tolist() == pytest.approx(written[name].tolist(), nan_ok=True), name
    assert found["verdict"].tolist() == written["verdict"].tolist()


def test_samples_a_config_and_a_model_alone_are_sources_as_well(run, tiny_model_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    alone = diffuse.sample(model=str(tiny_model_folder), prompts=COIN, n=20, max_new_tokens=5)
    assert (alone.mode, alone.prompts[0].alias) == ("untuned", "Say a letter.")
    config = diffuse.Config(model=str(tiny_model_folder), output_dir="results/{model}", device="cpu")
    of_config = diffuse.sample(config, mode="untuned", prompts=COIN, n=20, max_new_tokens=5)
    assert of_config.path == Path("results") / tiny_model_folder.name / "gen.untuned.json"
    assert of_config.counts == alone.counts
    asked = diffuse.sample(run, requests="Hello?", n=5, max_new_tokens=3, output="hello.jsonl")
    assert asked.counts["Hello?"].total() == 5
    assert set(diffuse.evaluate([alone, asked]).to_frame()["prompt"]) == {"Say a letter.", "Hello?"}


def test_a_config_file_takes_settings_in_place_of_its_own(tiny_model_folder, tmp_path):
    prompt, config = tmp_path / "p.json", tmp_path / "c.yaml"
    prompt.write_text(COIN.to_json())
    config.write_text(
        f"model: {tiny_model_folder}\ntrain_prompts: [{prompt}]\ntest_prompts: []\nalg_config: {{n_iters: 2, learning_rate: 0.02}}\n"
        f"retain: off\ndevice: cpu\noutput_dir: {tmp_path}/{{config}}\n"
    )
    seen = []
    done = diffuse.train(config, alg_config={"n_iters": 1}, report=seen.append)
    kept = diffuse.Config.model_validate(importlib.import_module("yaml").safe_load((done.path / "config.yaml").read_text()))
    assert (kept.alg_config.n_iters, kept.alg_config.learning_rate, done.path) == (1, 0.02, tmp_path / "c")
    assert [iteration.iteration for iteration in seen] == [1]
    assert [one.alias for one in done.prompts] == [str(prompt)]  # a file of its own is not copied
    assert not (done.path / "prompts").exists()


def test_no_prompt_file_is_ever_replaced(tmp_path):
    from diffusecli.api.inputs import kept_in

    assert COIN.probabilities == (0.75, 0.25)
    first, second = COIN, COIN.model_copy(update={"weights": (1.0, 3.0)})
    assert second.probabilities == (0.25, 0.75)  # worked out anew
    names = [Path(kept_in(tmp_path, one)).name for one in (first, second, first, second)]
    assert names == ["say-a-letter.json", "say-a-letter-2.json", "say-a-letter.json", "say-a-letter-2.json"]
    assert json.loads((tmp_path / "say-a-letter.json").read_text())["weights"] == [3, 1]
    named = [
        Path(kept_in(tmp_path, COIN.model_copy(update={"alias": alias}))).name for alias in ("my/coin.json", "run", "gen.json")
    ]
    assert named == ["coin.json", "run-1.json", "gen-1.json"]  # a folder with run.json would be taken for a run


def test_a_finished_run_is_refused_before_a_prompt_is_written_there(run, tiny_model_folder):
    before = sorted(path.name for path in (run.path / "prompts").iterdir())
    other = diffuse.Prompt(request="Say nothing.", targets=["{}"])
    with pytest.raises(diffuse.InputError, match="holds a finished run already"):
        diffuse.train(train_prompts=other, **settings(run.path.parent, tiny_model_folder))
    assert sorted(path.name for path in (run.path / "prompts").iterdir()) == before


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: diffuse.train("nowhere.yaml"), "nowhere.yaml: cannot be read"),
        (lambda: diffuse.train(model="m"), "the key 'output_dir' is missing"),
        (lambda: diffuse.train(model="m", output_dir="r", alg_config={"n_iter": 1}), "did you mean 'n_iters'?"),
        (lambda: diffuse.train(model="m", output_dir="r", load_model=True), "load_model needs a ckpt_dir"),
        (lambda: diffuse.train(model="m", output_dir="{config}"), "'{config}' is not replaced by a value"),
        (lambda: diffuse.train(diffuse.Config(model="m", output_dir="$HOME/r"), train_prompts=COIN), "is not replaced by a value"),
        (lambda: diffuse.train(model="m", output_dir="r"), "train_prompts is empty"),
        (
            lambda: diffuse.train(model="m", output_dir="r", train_prompts=COIN.model_copy(update={"weights": (1.0,)})),
            "Say a letter.:10:3: 1 weight for 2 targets",
        ),
        (
            lambda: diffuse.train(model="m", output_dir="r", train_prompts=COIN.model_copy(update={"targets": 3})),
            "Say a letter.: 'targets' must be a list",
        ),
        (diffuse.sample, "nothing to sample"),
        (lambda: diffuse.sample("nowhere"), "nowhere"),
        (lambda: diffuse.sample(model="m", requests="r", n=0), "must be 1 or more"),
        (lambda: diffuse.sample(model="m", requests="r", engine="openia"), "did you mean 'openai'?"),
        (lambda: diffuse.sample(model="m", requests="r", base="x"), "engine 'counting' has no option 'base'"),
        (lambda: diffuse.sample(model="m", requests="r", engine="openai"), "engine 'openai' needs base_url"),
        (lambda: diffuse.evaluate("nowhere"), "nowhere: no such file or folder"),
        (diffuse.evaluate, "nothing to evaluate"),
        (lambda: diffuse.evaluate(answers=["a"]), "name the prompt that they answer"),
        (lambda: diffuse.evaluate(answers=["a"], prompt=COIN, match="fuzzy"), "must be one of"),
        (lambda: diffuse.ensure_builtin("smollm3-135m-instruct"), "did you mean 'smollm2-135m-instruct'?"),
    ],
)
def test_what_is_wrong_with_the_input_is_a_typed_error_and_leaves_nothing(call, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(diffuse.InputError, match=re.escape(words)):
        call()
    assert list(tmp_path.iterdir()) == []


def test_a_lack_of_memory_and_ctrl_c_are_typed_errors(run, tiny_model_folder, tmp_path, monkeypatch):
    def fail(error):
        def stand_in(*_, **__):
            raise error

        return stand_in

    monkeypatch.setattr("diffusecli.verbs.train.save_run", fail(MemoryError()))
    given = {**settings(tmp_path, tiny_model_folder), "alg_config": {"n_iters": 1}}
    with pytest.raises(diffuse.MachineError, match="memory of this machine"):
        diffuse.train(train_prompts=COIN, **given)
    monkeypatch.setattr("diffusecli.verbs.train.save_run", fail(KeyboardInterrupt()))
    with pytest.raises(diffuse.InterruptedRun, match="last checkpoint is saved"):
        diffuse.train(train_prompts=COIN, **given)
    monkeypatch.undo()
    assert diffuse.train(train_prompts=COIN, **given).reason == "all 1 iteration done"  # goes on from there


def test_nothing_is_printed_and_notices_are_logged_as_information(run, capfd, caplog):
    caplog.set_level(logging.INFO, "diffusecli")
    capfd.readouterr()
    diffuse.sample(run, prompts=COIN, n=5, max_new_tokens=3)
    assert capfd.readouterr() == ("", "")
    assert any("with the adapter" in record.message and record.levelno == logging.INFO for record in caplog.records)
    caplog.clear()
    told = []
    diffuse.sample(run, prompts=COIN, n=5, max_new_tokens=3, notice=told.append)
    assert any("with the adapter" in line for line in told)
    assert caplog.records == []
