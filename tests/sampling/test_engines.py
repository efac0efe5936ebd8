"""Engines by name: what the command line knows of them, and that one function is all that adding one takes."""

from typing import Annotated

import pytest

from diffusecli.prompts.answers import Answers
from diffusecli.sampling import engines
from diffusecli.sampling.engines import ENGINES, Kind, engine
from diffusecli.sampling.settings import SamplingSettings
from diffusecli.verbs.evaluate import evaluate
from diffusecli.verbs.sample import Wanted, resolve, sample


class Recorded:
    """Gives the answers of a list, in turn."""

    def __init__(self, answers):
        self.answers, self.about = answers, {"engine": "recorded"}

    def limit(self, prompt):
        return 50

    def draw(self, wanted):
        missing = (self.answers * wanted.count)[wanted.have.total() : wanted.count]
        wanted.arrived(Answers(missing), len(missing))


@pytest.fixture
def recorded(monkeypatch):
    """An engine that is added and taken away again; the value is what it was asked for."""
    monkeypatch.setattr(engines, "ENGINES", dict(ENGINES))
    seen = []

    @engine("answers out of a list")
    def out_of_a_list(asked, *, answers: Annotated[str, "separated by commas"], twice: Annotated[bool, "each of them"] = False):
        seen.append(asked)
        yield Recorded(answers.split(",") * (1 + twice))
        seen.append("cleaned up")

    monkeypatch.setattr("diffusecli.verbs.sample.ENGINES", engines.ENGINES)
    return seen


def test_a_function_is_all_that_an_engine_takes(recorded, prompt_file, tmp_path):
    wanted = resolve(Wanted(model="any", prompts=(prompt_file(targets=["{a}", "{b}"]),), served=True), tmp_path)
    sample(
        wanted, SamplingSettings(n_generations=4), engine="out-of-a-list", options={"answers": "{a},{b}"}, max_rows=None,
        report=lambda *_: None, notice=lambda _: None,
    )  # fmt: skip
    (row,) = evaluate([wanted.path]).rows
    assert (row.tally.counts, row.figures.tvd) == ((2, 2), 0)
    assert (recorded[0].model, recorded[1]) == ("any", "cleaned up")


def test_its_keyword_only_parameters_are_its_options(recorded):
    kind = engines.ENGINES["out-of-a-list"]
    assert isinstance(kind, Kind)
    assert {name: (option.kind, option.help) for name, option in kind.options.items()} == {
        "answers": (str, "separated by commas"), "twice": (bool, "each of them"),
    }  # fmt: skip


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_is_told_with_its_options_by_the_help(diffuse, name):
    told = " ".join(diffuse("sample", "--help").stdout.split())
    assert f"{name}: {ENGINES[name].summary}" in told
    for option, about in ENGINES[name].options.items():
        assert f"--{option.replace('_', '-')} " in told
        assert f"With --engine {name}: {about.help}." in told


@pytest.mark.parametrize("name", [name for name, kind in ENGINES.items() if kind.required])
def test_what_an_engine_cannot_do_without_is_asked_for(diffuse, name):
    missing = diffuse("sample", "--engine", name)
    assert missing.returncode == 2
    assert missing.stderr.startswith(f"diffuse: --engine {name} needs --{ENGINES[name].required[0].replace('_', '-')}: ")


FOREIGN = [
    (name, f"--{option.replace('_', '-')}", told.kind)
    for name, own in ENGINES.items() for other in ENGINES.values() for option, told in other.options.items()
    if option not in own.options
]  # fmt: skip


@pytest.mark.parametrize(("name", "option", "kind"), FOREIGN)
def test_an_option_of_another_engine_is_refused(diffuse, name, option, kind):
    refused = diffuse("sample", "--engine", name, option, *(["1"] if kind is not bool else []))
    assert refused.returncode == 2
    assert f"{option} has no effect with --engine {name}" in refused.stderr
