"""`sample --ask` and `evaluate`: where asked samples are kept, and how they are shown beside the untuned and the tuned model."""

import json
from itertools import cycle, islice
from pathlib import Path

import pytest

import diffusecli as api
from diffusecli.evaluation.names import labels
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.prompt import Prompt
from diffusecli.report.html import html_report
from diffusecli.report.views import samplers
from diffusecli.runs.run_dir import RunDir
from diffusecli.runs.sample_files import ASK_METHODS, ASKED, read_meta
from diffusecli.sampling import engines
from diffusecli.sampling.engines import ENGINES, engine
from diffusecli.sampling.generations import Sampled
from diffusecli.sampling.settings import SamplingSettings
from diffusecli.system.errors import InputError
from diffusecli.verbs.evaluate import evaluate
from diffusecli.verbs.sample import Wanted, resolve, sample


@pytest.fixture
def run(trained, tmp_path):
    return tmp_path / "results" / "r1"


class Replying:
    """Gives the same replies in turn."""

    def __init__(self, limit):
        self.about, self.most, self.replies = {"engine": "replying"}, limit, cycle(["Answer: a", "**Answer:** B.", "I refuse."])

    def limit(self, prompt):
        return self.most

    def draw(self, wanted):
        missing = wanted.count - wanted.have.total()
        wanted.arrived(Answers(islice(self.replies, missing)), missing)


@pytest.fixture
def replying(monkeypatch):
    """The engine is one of the command line."""
    monkeypatch.setattr(engines, "ENGINES", dict(ENGINES))

    @engine("replies of a list")
    def replying(asked):
        yield Replying(asked.settings.max_new_tokens)

    monkeypatch.setattr("diffusecli.verbs.sample.ENGINES", engines.ENGINES)


def sampled(ask, prompts, place, n=6, **more):
    wanted = resolve(Wanted(model="any", prompts=prompts, served=True, ask=ask, **more), place)
    settings = SamplingSettings(n, whole_targets=True)
    return sample(wanted, settings, engine="replying", max_rows=None, report=lambda *_: None, notice=lambda _: None)


@pytest.mark.parametrize("ask", ["direct", "verbalized", "string-seed", "seeded"])
def test_replies_are_recorded_as_targets_and_evaluated(replying, ask, prompt_file, tmp_path):
    done = sampled(ask, (prompt_file(),), tmp_path)
    assert done.path.name == f"gen.untuned.ask-{ask}.json"
    (row,) = evaluate([done.path]).rows
    assert (row.mode, row.tally.counts, dict(row.tally.off_target)) == (f"ask {ask}", (2, 2), {"I refuse.": 2})
    assert done.remark == "4 of 6 replies name an option"
    meta = read_meta(done.path)
    assert (meta["mode"], meta["ask"]["method"]) == ("untuned", ask)
    assert meta["settings"]["max_new_tokens"] == {"direct": 33, "seeded": 301}.get(ask, 401)
    assert row.settings["ask"] == f"{ask}, version 1"


def test_cut_replies_are_counted_beside_those_that_name_an_option():
    done = Sampled({"p.json": Answers({"{a}": 1, "Well, I": 9})}, Path("s.json"), 1.0, 6, named=1)
    assert done.remark == (
        "1 of 10 replies names an option; 6 are cut at the token limit. A larger --max-new-tokens helps if the model still comes to an answer"
    )


def test_a_run_shows_the_tuned_model_then_the_untuned_one_and_every_method(run, in_process):
    for options in (["--mode", "untuned"], ["--ask", "direct"], ["--ask", "rejection"], ["--ask", "direct", "--mode", "lora"], []):
        done = in_process("sample", run, "-n", 4, "--max-new-tokens", 3, *options)
        assert done.returncode == 0, done.stderr
    names = {path.name for path in run.glob("gen.*.json") if not path.name.endswith(".meta.json")}
    assert names == {
        "gen.untuned.json", "gen.untuned.ask-direct.json", "gen.untuned.ask-rejection.json", "gen.lora.ask-direct.json", "gen.lora.json",
    }  # fmt: skip
    found = evaluate([run])
    assert [row.mode for row in found.rows] == ["lora", "untuned", "ask direct", "ask rejection", "lora ask direct"]
    assert [row.exact is not None for row in found.rows] == [True, True, False, False, False]
    assert [(d.before.mode, d.after.mode) for d in found.differences] == [
        ("untuned", "lora"), ("untuned", "ask direct"), ("untuned", "ask rejection"), ("untuned", "lora ask direct"),
    ]  # fmt: skip
    shown = in_process("evaluate", run).stdout
    assert "ask direct: " in shown
    assert "tuned ask direct: " in shown


def test_asking_needs_a_method_that_exists_and_prompts_with_targets(run, in_process):
    wrong = in_process("sample", run, "--ask", "nicely")
    assert (wrong.returncode, wrong.stderr) == (2, f"diffuse: --ask nicely: must be one of {', '.join(ASK_METHODS)}\n")
    plain = in_process("sample", run, "--ask", "direct", "--request", "Hi.")
    assert plain.returncode == 2
    assert plain.stderr == "diffuse: Hi.: --ask states the targets, but this prompt has none. Use a prompt with targets\n"


def test_the_first_line_names_the_method_and_the_mode(run, in_process):
    done = in_process("sample", run, "-n", 2, "--max-new-tokens", 2, "--ask", "seeded")
    assert "(untuned, asked by the method seeded) as in run" in done.stderr.splitlines()[0]


def test_an_adapter_is_asked_as_it_is(run, tmp_path):
    assert Wanted(adapter=run, ask="direct").default_mode == "lora"
    assert Wanted(source=run, ask="direct").default_mode == "untuned"
    assert Wanted(source=run).default_mode == "lora"


def test_a_new_training_discards_the_asked_samples_of_the_old_adapter_only(run):
    for mode in ("untuned", "lora"):
        RunDir(run).samples(mode, ask="direct").write_text("{}")
    RunDir(run).discard_samples()
    assert list(RunDir(run).sample_files()) == ["ask direct"]


def test_runs_are_compared_method_by_method(replying, prompt_file, tmp_path):
    places = [tmp_path / "one", tmp_path / "two"]
    paths = [sampled(ask, (prompt_file(),), place).path.parent for place in places for ask in ("direct", "seeded")]
    found = evaluate(paths)
    assert [(d.before.mode, d.after.mode) for d in found.differences] == [
        ("ask direct", "ask direct"),
        ("ask seeded", "ask seeded"),
    ]
    assert set(labels(found.rows).values()) == {
        "one/any (ask direct)",
        "one/any (ask seeded)",
        "two/any (ask direct)",
        "two/any (ask seeded)",
    }


def test_charts_draw_asked_samplers_as_dashed_baselines_in_colours_of_their_own(run, in_process):
    for options in (["--mode", "untuned"], ["--ask", "direct"], ["--ask", "seeded"], []):
        in_process("sample", run, "-n", 4, "--max-new-tokens", 3, *options)
    untuned = Path(run) / "gen.untuned.json"
    answers = json.loads(untuned.read_text())
    prompts = json.loads((Path(run) / "prompts.json").read_text())
    untuned.write_text(
        json.dumps({alias: {prompts[alias]["targets"][0]: 4} for alias in answers})
    )  # valid ones, so that charts have shares to hide
    found = evaluate([run])
    looks = {name.label: (name.colour, name.untuned) for name in samplers(found.rows).values()}
    assert looks == {
        "untuned": ("orange", True),
        "ask direct": ("muted", True),
        "ask seeded": ("sky", True),
        "tuned": ("blue", False),
    }
    page = html_report(found)
    assert "Show the untuned model and prompting" in page
    assert "asked by the method direct, version 1" in page


def test_limits_judge_the_tuned_model_not_the_baselines(run, in_process):
    in_process("sample", run, "-n", 4, "--max-new-tokens", 3, "--ask", "direct")
    in_process("sample", run, "-n", 4, "--max-new-tokens", 3)
    failed = in_process("evaluate", run, "--min-valid", "1")
    assert failed.returncode == 1
    assert "(tuned)" in failed.stderr
    assert "ask direct" not in failed.stderr


def test_the_same_from_python(run, tmp_path):
    samples = api.sample(run, ask="direct", n=3, max_new_tokens=3, prompts=Prompt(request="Say.", targets=("a", "b")))
    assert (samples.ask, samples.mode, samples.path.name) == ("direct", "untuned", "gen.untuned.ask-direct.json")
    assert [row.mode for row in api.evaluate(samples).document.rows] == ["ask direct"]
    plain = api.sample(run, n=3, mode="untuned", max_new_tokens=3, output=tmp_path / "plain.json")
    assert plain.ask is None
    with pytest.raises(InputError, match=r"ask 'dircet': must be one of direct, .* Did you mean"):
        api.sample(run, ask="dircet")
    samples.path.with_name("gen.untuned.ask-direct.meta.json").write_text(json.dumps({"mode": "untuned"}))
    with pytest.raises(InputError, match="replaced by another sampling"):
        api.evaluate(samples)


def test_names_of_asked_samplers():
    assert ASKED[0] == "ask direct"
    assert ASKED[-1] == "lora ask rejection"
