"""What commands print, character by character, at 60, 80 and 120 columns, with and without colour.

The texts are in `snapshots/`. After a wanted change write them anew with `SNAPSHOTS=write make fast`, and read the difference.
"""

import contextlib
import io
import os
import re
from pathlib import Path

import pytest
from rich.console import Console, Group

from diffusecli.evaluation.evaluation import Evaluation
from diffusecli.prompts.prompt import Draws, Prompt
from diffusecli.report.histogram import Showing
from diffusecli.report.progress import live_view
from diffusecli.report.summary import evaluation
from diffusecli.report.tables import distribution_preview, prompts_overview
from tests.report.test_progress import iteration
from tests.report.test_summary import found

FOLDER = Path(__file__).parent / "snapshots"
SURVEY = Prompt(
    request="How satisfied are you?", alias="prompts/survey/satisfaction.json",
    targets=("{very satisfied with it}", "{satisfied with it}", "{dissatisfied with it}", "{very dissatisfied with it}"), weights=(4, 3, 2, 1),
)  # fmt: skip
PEOPLE = Prompt(
    request="Who?",
    alias="prompts/people.json",
    targets=("{Ann, 34}", "{Ann, 35}", "{Bob, 34}", "{Bob, 35}"),
    template="{{{name}, {age}}}",
)
HANDS = Prompt(request="Deal.", targets=("A", "K", "Q"), draws=Draws(n=2, wrap="{%s}"), alias="prompts/hands.json")


def iterations():
    for n, far in ((1, 3.0), (2, 1.0), (3, 0.25)):
        kl = {f"mix/{'dice' if k % 2 else 'coins'}/{k}.json": far * (k + 1) / 10 for k in range(10)}
        yield iteration(n, 5, kl, 0.9, 5.0 + far, 5.0, mean_kl=far * 0.55, mean_on_target=0.9)


def judged(folder: Path) -> dict[str, Evaluation]:
    targets = SURVEY.targets
    return {
        "follows": found(folder, {targets[0]: 402, targets[1]: 305, targets[2]: 196, targets[3]: 97}, SURVEY),
        "differs": found(folder, {targets[0]: 250, targets[1]: 250, targets[2]: 250, targets[3]: 240, "I am a model": 10}, SURVEY),
        "few": found(folder, {targets[0]: 3, targets[1]: 1}, SURVEY),
        "off": found(folder, {"Sure! Very satisfied": 30, "I cannot say": 20}, SURVEY),
        "records": found(folder, {"{Ann, 34}": 40, "{Bob, 35}": 45, "{Ann, 35}": 10, "{Bob, 34}": 4, "{Cid, 34}": 1}, PEOPLE),
    }


def printed(width, colour, *what):
    out = io.StringIO()
    console = Console(
        file=out, width=width, force_terminal=colour, color_system="standard" if colour else None, highlight=False, markup=False, emoji=False,
        legacy_windows=False, _environ={},
    )  # fmt: skip
    console.print(Group(*what))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    with contextlib.chdir(tmp_path_factory.mktemp("samples")):  # paths are printed
        made = judged(Path())
    shown = Showing(24, None)
    return {
        **{f"evaluate-{name}": evaluation(one, shown) for name, one in made.items()},
        "evaluate-verbose": evaluation(made["differs"], shown, verbose=True),
        "init-prompt": distribution_preview(SURVEY),
        "validate": prompts_overview([SURVEY, PEOPLE, HANDS]),
        "train": live_view(list(iterations()), 7.0),
    }


NAMES = [
    *(f"evaluate-{name}" for name in ("follows", "differs", "few", "off", "records", "verbose")),
    "init-prompt",
    "validate",
    "train",
]


@pytest.mark.parametrize("colour", [False, True], ids=["plain", "colour"])
@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", NAMES)
def test_the_output_is_that_of_the_snapshot(views, name, width, colour):
    text = printed(width, colour, views[name]).replace("\x1b", "␛")
    file = FOLDER / f"{name}-{width}{'-colour' if colour else ''}.txt"
    if os.environ.get("SNAPSHOTS") == "write":
        FOLDER.mkdir(exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", NAMES)
def test_a_snapshot_is_no_wider_than_the_terminal(name, width):
    lines = (FOLDER / f"{name}-{width}.txt").read_text().splitlines()
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("name", [name for name in NAMES if name != "train"])  # a bar without colour has no rest
def test_colour_changes_no_character(name):
    plain, coloured = (FOLDER / f"{name}-80{ending}.txt" for ending in ("", "-colour"))
    bare = re.sub(r"␛\[[0-9;]*m", "", coloured.read_text())
    assert [line.rstrip() for line in bare.splitlines()] == plain.read_text().splitlines()
