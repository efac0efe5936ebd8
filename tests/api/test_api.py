"""The Python API: light to import, quiet, typed errors, results as data frames and as tables in which every text is escaped."""

import importlib
import json
import logging
import math
import re
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from html import unescape
from pathlib import Path
from types import MappingProxyType

import numpy as np
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


def test_a_program_gets_wordings_that_name_the_targets_of_a_file_too(tmp_path):
    (tmp_path / "c.txt").write_text("red\nblue\n")
    made = diffuse.init_prompt(from_file=tmp_path / "c.txt", wordings=4)
    assert all("red" in text.lower() and "blue" in text.lower() for text in made.requests)


def test_a_prompt_is_asked_for_in_many_wordings(caplog):
    many = diffuse.init_prompt(uniform=(1, 6), wordings=20, held_out=5, seed=2)
    assert (len(many.requests), len(many.held_out_requests)) == (20, 5)
    assert many == diffuse.init_prompt(uniform=(1, 6), wordings=20, held_out=5, seed=2)
    own = diffuse.init_prompt(["Toss a die.", "A die, please.", "Throw 1 to 60."], uniform=(1, 6), form=True, held_out=1)
    assert (len(own.requests), len(own.held_out_requests)) == (2, 1)
    assert own.requests[0].startswith("Toss a die. Output only the number")
    with pytest.raises(diffuse.InputError, match="wordings: must be 1 or more, not 0"):
        diffuse.init_prompt(uniform=(1, 6), wordings=0)
    diffuse.init_prompt(["From 1 to 6 {n}", "From 1 to 60 {n}"], uniform=(1, 6))
    assert "has range 1 to 60, not range 1 to 6" in caplog.text


def test_prompts_come_from_files_a_prompt_for_each_group(tmp_path):
    table = tmp_path / "seen.csv"
    table.write_text("who,what\na,x\na,x\na,y\nb,y\n")
    whole = diffuse.init_prompt("Which?", from_file=table, column="what", count=True)
    assert (whole.targets, whole.probabilities) == (("{x}", "{y}"), (0.5, 0.5))
    groups = diffuse.init_prompts("Which for {who}?", from_file=str(table), column="what", count=True, group_by="who")
    assert {key: prompt.request for key, prompt in groups.items()} == {("a",): "Which for a?", ("b",): "Which for b?"}
    assert groups["a",].probabilities == pytest.approx((2 / 3, 1 / 3))
    with pytest.raises(diffuse.InputError, match="Call init_prompts"):
        diffuse.init_prompt("Which for {who}?", from_file=table, column="what", count=True, group_by=["who"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "no distribution given. Name one"),
        ({"binomail": (1, 0.5)}, "Did you mean 'binomial'"),
        ({"binomial": 3}, "takes 2 values, e.g. --binomial 10 0.2"),
        ({"binomial": (2.5, 0.5)}, "whole numbers"),
        ({"binomial": ("x", 0.5)}, "Write it as in --binomial 10 0.2"),
        ({"choices": {"a": "x"}}, "is not a number"),
        ({"uniform": (1, 3), "poisson": 4}, "exclude each other"),
        ({"from_file": "nowhere.csv"}, "nowhere.csv"),
        ({"uniform": (1, 3), "tail": 0.1}, "--tail has no effect with --uniform"),
    ],
)
def test_wrong_options_are_typed_errors(options, words):
    with pytest.raises(diffuse.InputError, match=re.escape(words)):
        diffuse.init_prompt(**options)


@pytest.mark.parametrize(
    "given",
    [
        ["a", "b"], ("a", "b"), pd.Series(["a", "b"]), pd.Series(["a", "b"], dtype="string"), pd.Series(["a", "b"], dtype="category"),
        pd.Index(["a", "b"]), np.array(["a", "b"]), pd.array(["a", "b"]), {"a": 3, "b": 1}.keys(), (text for text in "ab"),
    ],
    ids=lambda given: type(given).__name__,
)  # fmt: skip
def test_choices_are_any_texts_in_an_order(given):
    assert diffuse.init_prompt("Which?", choices=given, wrap="%s").to_frame()["weight"].tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    "given",
    [
        {"a": np.int64(3), np.str_("b"): np.float32(1)}, pd.Series({"a": 3, "b": 1}), pd.Series(list("aaab")).value_counts(),
        pd.Series({"a": 0.75, "b": 0.25}), {"a": Fraction(3, 4), "b": Decimal("0.25")}, MappingProxyType({"a": "75%", "b": "25%"}),
    ],
    ids=lambda given: type(given).__name__,
)  # fmt: skip
def test_choices_have_the_weights_of_a_mapping_or_a_column(given):
    prompt = diffuse.init_prompt("Which?", choices=given, wrap="%s")
    assert (prompt.targets, prompt.probabilities) == (("a", "b"), (0.75, 0.25))


def test_numbers_of_numpy_are_numbers():
    assert diffuse.init_prompt("Which?", choices={np.int64(1): 1, 2.5: 1}, wrap="%s").targets == ("1", "2.5")
    assert diffuse.init_prompt("r", uniform=(np.int64(1), np.int64(2)), wrap="%s").targets == ("1", "2")
    assert diffuse.init_prompt("r", binomial=(np.int64(1), np.float32(0.5))).probabilities == (0.5, 0.5)
    prompt = diffuse.Prompt(request="r", targets=["a", "b"])
    assert diffuse.evaluate(answers={"a": np.int64(3), "b": np.int32(1)}, prompt=prompt).to_frame()["n"].tolist() == [4]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"choices": {"a", "b"}}, "choices: a set has no order. Write a list"),
        ({"choices": ["a", None]}, "choices: None is no choice"),
        ({"choices": ["a", math.nan]}, "choices: nan is no choice"),
        ({"choices": ["a", pd.NA]}, "choices: a NAType is no choice"),
        ({"choices": {"a": None}}, "choices: the weight of 'a': must be a number, not None"),
        ({"choices": {"a": True}}, "choices: the weight of 'a': must be a number, not True"),
        ({"choices": {"a": math.nan, "b": 1}}, "choices: the weight of 'a': must be a number, not nan"),
        ({"choices": {"a": -1, "b": 2}}, "choices: the weight of 'a': must be 0 or more, not -1"),
        ({"choices": {1: 1, "1": 2}}, "choices: '1' is there twice"),
        (
            {"choices": pd.DataFrame({"a": [1]})},
            "choices: must be a mapping of text to weight, or a list of texts, not a DataFrame",
        ),
        ({"choices": [["a"], ["b"]]}, "choices: must be texts or numbers, not a list"),
        ({"choices": np.array([["a"], ["b"]])}, "choices: must be texts or numbers, not a ndarray"),
        ({"choices": np.array("a")}, "choices: must be a mapping"),
        ({"choices": 5}, "choices: must be a mapping of text to weight, or a list of texts, not 5"),
        ({"choices": []}, "choices: is empty"),
        ({"from_file": "t.csv", "alpha": -1}, "alpha: must be 0 or more, not -1"),
        ({"from_file": "t.csv", "min_count": -0.5}, "min_count: must be 0 or more, not -0.5"),
        ({"from_file": "t.csv", "top": 0}, "top: must be 1 or more, not 0"),
        ({"from_file": "t.csv", "top": 2.5}, "top: must be a whole number, not 2.5"),
        ({"from_file": "t.csv", "skip_rows": -1}, "skip_rows: must be 0 or more, not -1"),
        ({"from_file": "t.csv", "count": "yes"}, "count: must be True or False, not 'yes'"),
        ({"from_file": "t.csv", "column": 3}, "column: must be a text, not 3"),
        ({"from_file": pd.DataFrame({"a": [1]})}, "from_file: is a table in memory. Write it to a file with to_csv"),
        ({"scipy": "norm(0, 1)", "decimals": -1}, "decimals: must be 0 or more, not -1"),
        ({"scipy": "norm(0, 1)", "decimals": True}, "decimals: must be a whole number, not True"),
        ({"poisson": 4, "tail": "x"}, "tail: must be a number, not 'x'"),
        ({"poisson": 4, "tail": 10**400}, "tail: must be below 2**63, not 1000"),
        ({"request": "\ud800", "benford": True}, "request: must be a text in UTF-8 without NUL"),
        ({"poisson": True}, "poisson: True is neither a number nor a text"),
        ({"benford": "yes"}, "benford: must be True or False"),
        ({"request": 5, "benford": True}, "request: must be a text or a list of texts, not 5"),
        ({"benford": True, "eos": "no"}, "eos: must be True or False"),
        ({"benford": True, "notice": "log"}, "notice: must be a function"),
    ],
)
def test_options_of_the_wrong_kind_or_range_are_named(options, words):
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
    assert run.reason == "finished 60 iterations"
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


def test_wordings_are_sampled_together_or_each_on_its_own(run):
    letter = COIN.model_copy(
        update={"request": ("Say a letter.", "A letter?"), "held_out_requests": ("Letter!",), "alias": "letter"}
    )
    pooled = diffuse.sample(run, prompts=letter, n=21, max_new_tokens=3)
    each = diffuse.sample(run, prompts=letter, n=21, max_new_tokens=3, per_wording=True)
    assert pooled.to_frame().groupby("prompt")["count"].sum().to_dict() == {"letter": 21}
    names = ["letter#1", "letter#2", "letter#held-out-1"]
    assert [prompt.alias for prompt in each.prompts] == names
    assert each.to_frame().groupby("prompt")["count"].sum().to_dict() == dict.fromkeys(names, 21)
    with pytest.raises(diffuse.InputError, match="per_wording: must be True or False"):
        diffuse.sample(run, prompts=letter, per_wording="yes")


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
    for others in run.path.glob("gen.*.[0-9]*"):  # samples of other prompts, which stay
        others.unlink()
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


def test_a_conversation_in_memory_is_kept_as_it_is(tmp_path):
    from diffusecli.api.inputs import kept_in, named, valid
    from diffusecli.prompts.prompt_files import read_prompt

    turns = [
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": "A letter?"},
    ]
    talk = diffuse.Prompt(messages=turns, targets=["{a}", "{b}"])
    assert valid(talk).digest == talk.digest
    assert [one.alias for one in named([talk], None)] == ["A letter?"]
    assert read_prompt(kept_in(tmp_path, talk)).messages == talk.messages
    with pytest.raises(diffuse.InputError, match="both request and messages are given"):
        valid(talk.model_copy(update={"request": "A letter?"}))


def test_a_wording_of_a_prompt_without_a_name_goes_by_its_request():
    from diffusecli.api.inputs import named

    die = diffuse.Prompt(request=["Roll.", "Throw."], held_out_requests=["Cast."], targets=["1", "2"])
    assert [one.alias for one in named([*die.wordings, *die.held_out], None)] == ["Roll.", "Throw.", "Cast."]


def test_a_finished_run_is_refused_before_a_prompt_is_written_there(run, tiny_model_folder):
    before = sorted(path.name for path in (run.path / "prompts").iterdir())
    other = diffuse.Prompt(request="Say nothing.", targets=["{}"])
    with pytest.raises(diffuse.InputError, match="already contains a finished run"):
        diffuse.train(train_prompts=other, **settings(run.path.parent, tiny_model_folder))
    assert sorted(path.name for path in (run.path / "prompts").iterdir()) == before


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: diffuse.train("nowhere.yaml"), "nowhere.yaml: does not exist"),
        (lambda: diffuse.train(model="m"), "the key 'output_dir' is missing"),
        (lambda: diffuse.train(model="m", output_dir="r", alg_config={"n_iter": 1}), "Did you mean 'n_iters'?"),
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
        (lambda: diffuse.sample(model="m", requests="r", engine="openia"), "Did you mean 'openai'?"),
        (lambda: diffuse.sample(model="m", requests="r", base="x"), "engine 'counting' has no option 'base'"),
        (lambda: diffuse.sample(model="m", requests="r", engine="openai"), "engine 'openai' needs base_url"),
        (lambda: diffuse.evaluate("nowhere"), "nowhere: does not exist"),
        (diffuse.evaluate, "nothing to evaluate"),
        (lambda: diffuse.evaluate(answers=["a"]), "prompt= is missing. Name their prompt"),
        (lambda: diffuse.train(COIN), "config: these are prompts. Write train(train_prompts=…)"),
        (lambda: diffuse.train({(): COIN}), "config: these are prompts. Write train(train_prompts=…)"),
        (lambda: diffuse.train({"model": "m"}), "train(**settings)"),
        (lambda: diffuse.train(5), "config: must be a Config or the path of its file, not 5"),
        (lambda: diffuse.train(model="m", output_dir="r", train_prompts=[]), "train_prompts: is empty. Name a prompt"),
        (lambda: diffuse.train(model="m", output_dir="r", train_prompts=[3]), "train_prompts: must be a prompt, a path, or a list"),
        (lambda: diffuse.train(model="m", output_dir="r", train_prompts={COIN}), "train_prompts: a set has no order"),
        (lambda: diffuse.train(model="m", output_dir="r", train_prompts=COIN, force="yes"), "force: must be True or False"),
        (lambda: diffuse.train(model="m", output_dir="r", train_prompts=COIN, report=3), "report: must be a function, not 3"),
        (lambda: diffuse.train(model="./nowhere", output_dir="r", train_prompts=COIN, retain=False, device="cpu"), "nowhere"),
        (lambda: diffuse.sample(COIN), "source: these are prompts. Write sample(run, prompts=…)"),
        (lambda: diffuse.sample([COIN]), "source: these are prompts"),
        (lambda: diffuse.sample(5), "source: must be what train returned"),
        (lambda: diffuse.sample(model="m", mode="Lora"), "mode 'Lora': must be one of untuned, lora. Did you mean 'lora'?"),
        (lambda: diffuse.sample(model="m", prompts=[]), "prompts: is empty. Remove it to use the run's own prompts"),
        (lambda: diffuse.sample(model="m", requests=[]), "requests: is empty. Remove it to use the run's own prompts"),
        (lambda: diffuse.sample(model="m", requests=[], prompts=[]), "prompts: is empty. Remove it to use the run's own prompts"),
        (lambda: diffuse.sample(model="m", requests=[1]), "requests: must be a text, not 1"),
        (lambda: diffuse.sample(model="m", requests="r", n=1e1), "n: must be a whole number, not 10.0"),
        (lambda: diffuse.sample(model="m", requests="r", n=True), "n: must be a whole number, not True"),
        (lambda: diffuse.sample(model="m", requests="r", n="5"), "n: must be a whole number, not '5'"),
        (lambda: diffuse.sample(model="m", requests="r", seed=-1), "seed: must be 0 or more, not -1"),
        (lambda: diffuse.sample(model="m", requests="r", temperature="1"), "temperature: must be a number, not '1'"),
        (lambda: diffuse.sample(model="m", requests="r", temperature=-1), "must be above 0"),
        (lambda: diffuse.sample(model="m", requests="r", top_k=-1), "top_k: must be 0 or more, not -1"),
        (lambda: diffuse.sample(model="m", requests="r", max_rows=0), "max_rows: must be 1 or more, not 0"),
        (lambda: diffuse.sample(model="m", requests="r", precision="fp8"), "precision 'fp8': must be one of fp32, bf16, fp16"),
        (lambda: diffuse.sample(model="m", requests="r", output=3), "output: must be a path, not 3"),
        (lambda: diffuse.sample(model="m\0", requests="r"), "model: must be a text in UTF-8 without NUL"),
        (lambda: diffuse.sample(model="m", requests="r", output="\ud800"), "output: must be a path that a file can have"),
        (lambda: diffuse.sample(model="m", requests="r", chat_template=""), "chat_template: is empty"),
        (lambda: diffuse.sample(model=3, requests="r"), "model: must be a text, not 3"),
        (lambda: diffuse.sample(temprature=1), "did you mean 'temperature'?"),
        (
            lambda: diffuse.sample(model="m", requests="r", engine="openai", base_url="http://localhost:1", tries="x"),
            "tries: must be a whole number, not 'x'",
        ),
        (
            lambda: diffuse.sample(model="m", requests="r", engine="openai", base_url="http://localhost:1", device="cpu"),
            "device has no effect with engine 'openai'",
        ),
        (lambda: diffuse.evaluate(5), "source: must be a run, samples, a path, or a list of these, not 5"),
        (lambda: diffuse.evaluate(None), "source: must be a run, samples, a path, or a list of these, not None"),
        (lambda: diffuse.evaluate([]), "nothing to evaluate"),
        (lambda: diffuse.evaluate(COIN), "source: these are prompts. Write evaluate(answers=…, prompt=…)"),
        (
            lambda: diffuse.evaluate(["a", "b"]),
            "a: does not exist. For answers in memory write evaluate(answers=…, prompt=…)",
        ),
        (lambda: diffuse.evaluate(".", model="m"), "model has no effect without exact=True"),
        (lambda: diffuse.evaluate(".", trust_remote_code=True), "trust_remote_code has no effect without exact=True"),
        (lambda: diffuse.evaluate(".", column="x"), "column: describes a file of raw answers"),
        (lambda: diffuse.evaluate(answers=["a"], prompt=COIN, column="x"), "column: describes a file of raw answers"),
        (lambda: diffuse.evaluate(answers=["a"], prompt=COIN, layout=3), "layout: must be a Layout, not 3"),
        (lambda: diffuse.evaluate(answers=["a"], prompt=COIN, seed=-1), "seed: must be 0 or more, not -1"),
        (lambda: diffuse.evaluate(answers=["a"], prompt=5), "prompt: must be a prompt or the path of its file, not 5"),
        (lambda: diffuse.evaluate(answers="ab", prompt=COIN), "answers: must be a list of texts, or a mapping of text to count"),
        (lambda: diffuse.evaluate(answers={"a", "b"}, prompt=COIN), "answers: a set has no order"),
        (lambda: diffuse.evaluate(answers=pd.DataFrame({"a": ["x"]}), prompt=COIN), "answers: must be a list of texts"),
        (lambda: diffuse.evaluate(answers=["a", 3, None], prompt=COIN), "answers: 3 is not a text"),
        (lambda: diffuse.evaluate(answers=["a", None], prompt=COIN), "answers: None is not a text"),
        (lambda: diffuse.evaluate(answers={"a": -1}, prompt=COIN), "answers: the count of 'a': must be 0 or more, not -1"),
        (lambda: diffuse.evaluate(answers={"a": 0.5}, prompt=COIN), "answers: the count of 'a': must be a whole number, not 0.5"),
        (lambda: diffuse.evaluate(answers=[], prompt=COIN), "answers: is empty"),
        (lambda: diffuse.evaluate(answers={"a": 0}, prompt=COIN), "answers: is empty"),
        (lambda: diffuse.ensure_builtin(5), "name: must be a text, not 5"),
        (lambda: diffuse.evaluate(answers=["a"], prompt=COIN, match="fuzzy"), "must be one of"),
        (lambda: diffuse.ensure_builtin("smollm3-135m-instruct"), "Did you mean 'smollm2-135m-instruct'?"),
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
    with pytest.raises(diffuse.MachineError, match="not enough memory"):
        diffuse.train(train_prompts=COIN, **given)
    monkeypatch.setattr("diffusecli.verbs.train.save_run", fail(KeyboardInterrupt()))
    with pytest.raises(diffuse.InterruptedRun, match="last checkpoint is saved"):
        diffuse.train(train_prompts=COIN, **given)
    monkeypatch.undo()
    assert diffuse.train(train_prompts=COIN, **given).reason == "finished 1 iteration"  # goes on from there


def test_nothing_is_printed_and_notices_are_logged_as_information(run, capfd, caplog):
    caplog.set_level(logging.INFO, "diffusecli")
    capfd.readouterr()
    diffuse.sample(run, prompts=COIN, n=5, max_new_tokens=3)
    assert capfd.readouterr() == ("", "")
    assert any("(tuned, adapter " in record.message and record.levelno == logging.INFO for record in caplog.records)
    caplog.clear()
    told = []
    diffuse.sample(run, prompts=COIN, n=5, max_new_tokens=3, notice=told.append)
    assert any("(tuned, adapter " in line for line in told)
    assert caplog.records == []


@pytest.mark.parametrize(
    "answers",
    [
        pd.Series(["{a}", "{a}", "{b}"]), np.array(["{a}", "{a}", "{b}"]), pd.Series(["{a}", "{a}", "{b}"]).value_counts(),
        (text for text in ("{a}", "{a}", "{b}")), Answers({"{a}": 2, "{b}": 1}),
    ],
    ids=lambda answers: type(answers).__name__,
)  # fmt: skip
def test_answers_are_columns_and_counts_as_well(answers):
    assert diffuse.evaluate(answers=answers, prompt=COIN).targets_to_frame()["count"].tolist() == [2, 1]


def test_samples_that_were_replaced_are_not_judged(run, tmp_path):
    first = diffuse.sample(run, prompts=COIN, n=20, max_new_tokens=6, seed=1)
    assert diffuse.evaluate(first).to_frame()["n"].tolist() == [20]
    second = diffuse.sample(run, prompts=COIN, n=30, max_new_tokens=6, seed=2)
    for source in (first, [first, second]):
        with pytest.raises(
            diffuse.InputError, match=r"gen.lora(.\d)?.json: these samples were replaced by another sampling.*output=…"
        ):
            diffuse.evaluate(source)
    assert diffuse.evaluate([second, second]).to_frame()["n"].tolist() == [30]
    own = diffuse.sample(run, prompts=COIN, n=20, max_new_tokens=6, seed=1, output=tmp_path / "own.csv")
    diffuse.sample(run, prompts=COIN, n=30, max_new_tokens=2, seed=1)
    assert diffuse.evaluate(own).to_frame()["n"].tolist() == [20]
    own.path.unlink()
    with pytest.raises(diffuse.InputError, match=r"own.csv: these samples were replaced"):
        diffuse.evaluate(own)


def test_unfinished_answers_count_among_what_tells_samples_apart(run, tmp_path):
    drawn = diffuse.sample(run, prompts=COIN, n=5, max_new_tokens=1, output=tmp_path / "cut.json")
    assert drawn.unfinished == 5
    diffuse.evaluate(drawn)
    whole = {alias: Answers(dict(counts)) for alias, counts in drawn.counts.items()}
    with pytest.raises(diffuse.InputError, match="these samples were replaced"):
        diffuse.evaluate(replace(drawn, counts=whole))


def test_a_run_whose_adapter_was_replaced_is_not_judged(run):
    assert run.adapter_sha256 == RunDir(run.path).adapter_sha256
    with pytest.raises(diffuse.InputError, match="the adapter was replaced by another training"):
        diffuse.evaluate(replace(run, adapter_sha256="0" * 64))


def test_results_are_found_after_a_change_of_the_working_directory(tiny_model_folder, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    given = {**settings(Path(), tiny_model_folder), "alg_config": {"n_iters": 1}}
    done = diffuse.train(train_prompts={("coin",): COIN}, **given)
    assert done.path == Path("run")
    drawn = diffuse.sample(done, n=5, max_new_tokens=3)
    assert drawn.path == Path("run/gen.lora.json")
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = diffuse.sample(done, prompts={("coin",): COIN}, n=5, max_new_tokens=3)
    assert again.path == tmp_path / "run" / "gen.lora.json"
    assert diffuse.evaluate(again).to_frame()["n"].tolist() == [5]
    assert diffuse.evaluate(done).to_frame()["n"].tolist() == [5]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_refused_training_keeps_the_files_that_were_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r" / "prompts").mkdir(parents=True)
    (tmp_path / "r" / "prompts" / "mine.json").write_text(COIN.to_json())
    other = diffuse.Prompt(request="Say nothing.", targets=["{}"])
    with pytest.raises(diffuse.InputError, match="nowhere"):
        diffuse.train(model="./nowhere", output_dir="r", train_prompts=other, retain=False, device="cpu")
    assert [path.name for path in (tmp_path / "r" / "prompts").iterdir()] == ["mine.json"]


def test_settings_beside_a_file_count_before_its_paths_are_filled_in(tmp_path, monkeypatch):
    """As `--set model=m2` does: another model has another run, and no other run is replaced."""
    from diffusecli.api.inputs import configured

    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text("model: m\noutput_dir: r/{model}-{config}\nalg_config: {n_iters: 3, batch_size: 7}\n")
    assert configured("c.yaml", {})["output_dir"] == "r/m-c"
    assert configured("c.yaml", {"model": "m2"})["output_dir"] == "r/m2-c"
    assert configured("c.yaml", {"alg_config": {"n_iters": 5}})["alg_config"] == {"n_iters": 5, "batch_size": 7}
    Path("d.yaml").write_text("output_dir: out\n")
    assert configured("d.yaml", {"model": "m", "retain": False})["retain"] is False


def test_a_prompt_that_is_not_sound_is_shown_all_the_same():
    for weights in ((1.0,), (0.0, 0.0)):
        shown = diffuse.Prompt(request="Toss.", targets=("a", "b"), weights=weights)
        assert shown.to_frame()["weight"].isna().tolist() == [True, True]
        assert "<td" in shown._repr_html_()


def test_targets_of_an_open_prompt_make_an_empty_frame_with_all_columns():
    found = diffuse.evaluate(answers=["a", "b"], prompt=diffuse.Prompt(request="A word.", targets=()))
    assert len(found.targets_to_frame()) == 0
    assert {"run", "mode", "prompt", "target", "weight", "count", "share", "differs"} <= set(found.targets_to_frame().columns)


def test_spellings_are_taken_where_they_are_asked_for():
    die = diffuse.init_prompt(uniform=(1, 2), spellings=True)
    assert die.targets == ("{1}", "{2}")
    assert die.spellings[1] == ("{2}", "2", "{two}", "two", "{Two}", "Two")
    own = diffuse.Prompt(request="Toss a coin.", targets=[["heads", "H"], "tails"])
    assert own.to_frame()["target"].tolist() == ["heads", "tails"]
    found = diffuse.evaluate(answers=["heads", "H", "tails", "T"], prompt=own)
    assert found.to_frame()["valid"].tolist() == [0.75]
    assert found.targets_to_frame()["count"].tolist() == [2, 1]
    twice = own.model_copy(update={"targets": (("heads", "H"), ("tails", "H"))})
    with pytest.raises(diffuse.InputError, match="duplicate spelling 'H'"):
        diffuse.train(model="m", output_dir="r", train_prompts=twice)
