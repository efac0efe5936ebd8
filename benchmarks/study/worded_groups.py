"""`python -m benchmarks.study.worded_groups FOLDER`: write the prompts of the six groups in many wordings.

By rule: a template of the question, filled with what a prompt is about, and a clause on the form of the answer from the bank of `diffuse init-prompt`.
Below the folder, `trained/GROUP` has a prompt's own request and eleven more in one file. `measured/own/GROUP` has its own request alone, and
`measured/other/GROUP` two requests, one per file, whose questions no prompt is trained on.
"""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.study.groups import GROUPS
from diffusecli.files.writing import write_text
from diffusecli.prompts.distributions import Distribution
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.prompt_files import read_prompts
from diffusecli.prompts.request_wording import Wording
from diffusecli.prompts.wordings import draw_forms

TRAINED, MEASURED = "trained", "measured"
OWN, OTHER = f"{MEASURED}/own", f"{MEASURED}/other"

QUESTIONS = (
    "Pick {one} at random.",
    "Name {one}, chosen purely by chance.",
    "Draw {one} from a hat that holds all {some}.",
    "I need {one}. Each of the {some} will do, all with the same chance.",
    "Simulate a fair draw from the list of {some}.",
    "What might Python's random.choice return for a list of all {some}?",
    "You are a fair random generator of {some}. What comes next?",
    "A teacher picks {one} blindly for the next lesson. Which one is it?",
    "Quick, {one}, and no favourites!",
    "Choose uniformly from the set of {some}.",
    "For a quiz we draw {one} by lot. Which one comes out?",
    "Give me one of the {some}, and let none of them be more likely than another.",
    "Close your eyes and put your finger on a list of all {some}. What is under it?",
    "Task: random selection. Set: {some}. Weights: equal.",
    "Suppose somebody shuffles cards, one for each of the {some}, and turns over the top card. What is on it?",
    "Each participant gets {one} at random. What does the next one get?",
    "Please generate {one}, drawn with equal probability.",
    "From a database of {some}, one row is sampled. All rows are equally likely. Which one is it?",
    "It has to be {one}. Which one is up to chance.",
    "Roll a die with one face for each of the {some}. Which face is on top?",
)
OTHER_QUESTIONS = (
    "Let X be uniform on the set of all {some}. State one value of X.",
    "Spin a wheel with a sector of the same size for each of the {some}. Where does it stop?",
)
"""These are only measured."""

WORDINGS = 12  # of a prompt: its own request, and eleven others


@dataclass(frozen=True)
class About:
    """What a prompt asks for, in the words of a question."""

    one: str
    some: str
    noun: str
    note: str = ""  # on spelling, where targets need it

    def question(self, template: str) -> str:
        """The template filled.

        >>> About("a fruit", "fruits", "fruit", "In lower case.").question("Pick {one}.")
        'Pick a fruit. In lower case.'
        """
        return " ".join(filter(None, (template.format(one=self.one, some=self.some), self.note)))


def _numbers(one: str, some: str, noun: str = "number") -> About:
    return About(one, some, noun)


def _countries(where: str) -> About:
    return About(f"a country in {where}", f"countries in {where}", "country")


def _dates(month: str) -> About:
    return About(f"a date in {month}", f"dates in {month}", "date", "Write the month and the number of the day.")


_DAY = About("a day of the week", "days of the week", "day")
_FRUIT = About("a fruit", "fruits", "fruit", "Write it in lower case.")
_CAPITAL = "Begin it with a capital letter."

ABOUT: dict[str, About] = {
    "first-names": About("a first name that is familiar in the United States", "first names familiar in the United States", "name"),
    **{
        name: _countries(where)
        for name, where in {
            "africa": "Africa", "asia": "Asia", "europe": "Europe", "north-america": "North America, Central America or the Caribbean",
            "oceania": "Oceania", "south-america": "South America",
        }.items()
    },
    "day-0": _DAY, "day-1": _DAY,
    "december-0": _dates("December"), "december-1": _dates("December"), "june-0": _dates("June"), "june-1": _dates("June"),
    "fruit-0": _FRUIT, "fruit-1": _FRUIT,
    "even-0": _numbers("an even number from 1 to 10", "even numbers from 1 to 10"),
    "even-1": _numbers("an even number from 1 to 100", "even numbers from 1 to 100"),
    "odd-0": _numbers("an odd number from 1 to 10", "odd numbers from 1 to 10"),
    "odd-1": _numbers("an odd number from 1 to 100", "odd numbers from 1 to 100"),
    "prime-0": _numbers("a prime number below 50", "prime numbers below 50", "prime"),
    "prime-1": _numbers("a prime number up to 100", "prime numbers up to 100", "prime"),
    "rng-0": _numbers("a whole number from 1 to 10", "whole numbers from 1 to 10"),
    "rng-1": _numbers("a whole number from 1 to 100", "whole numbers from 1 to 100"),
    "occupations-0": About("an occupation", "occupations", "occupation", _CAPITAL),
    "occupations-1": About("an occupation whose name begins with A", "occupations whose name begins with A", "occupation", _CAPITAL),
    "occupations-2": About("an occupation whose name begins with M", "occupations whose name begins with M", "occupation", _CAPITAL),
}  # fmt: skip
"""By the name of a prompt's file."""


def names(path: str) -> str:
    """The name in `ABOUT` of a measured prompt.

    >>> names("own/fruits/fruit-1.json"), names("other/fruits/fruit-1-2.json"), names("other/countries/south-america-1.json")
    ('fruit-1', 'fruit-1', 'south-america')
    """
    name = Path(path).stem
    return name if name in ABOUT else name.rpartition("-")[0]


def prompts() -> Iterator[tuple[str, Prompt]]:
    """Group and prompt of all six groups, in the order of the files."""
    for group, path in GROUPS.items():
        for prompt in read_prompts([path]):
            yield group, prompt


def worded(prompt: Prompt) -> Prompt:
    """The prompt in `WORDINGS` wordings, its own request first, and held-out ones with other questions.

    The same file always gets the same wordings. Two prompts of one kind, such as both for days, get different ones.
    """
    name = Path(prompt.alias).stem
    about, seed = ABOUT[name], list(ABOUT).index(name)
    drawn = random.Random(seed).sample(QUESTIONS, WORDINGS - 1)  # noqa: S311 (wordings, not secrets)
    bare = Distribution(tuple(target.removeprefix("{").removesuffix("}") for target in prompt.targets), None, "", about.noun)
    asked, others = ([about.question(template) for template in some] for some in (drawn, OTHER_QUESTIONS))
    trained, apart = draw_forms(asked, others, bare, Wording(), WORDINGS - 1, len(OTHER_QUESTIONS), seed)
    return Prompt(
        request=(*prompt.requests, *trained),
        held_out_requests=apart,
        targets=prompt.targets,
        weights=prompt.weights,
        eos=prompt.eos,
    )


def write(folder: Path) -> None:
    """Write all prompts, trained and measured, into a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for group, prompt in prompts():
        name, several = Path(prompt.alias).stem, worded(prompt)
        write_text(folder / TRAINED / group / f"{name}.json", several.model_copy(update={"held_out_requests": ()}).to_json())
        write_text(folder / OWN / group / f"{name}.json", prompt.to_json())
        for number, request in enumerate(several.held_out_requests, 1):
            one = Prompt(request=request, targets=prompt.targets, weights=prompt.weights, eos=prompt.eos)
            write_text(folder / OTHER / group / f"{name}-{number}.json", one.to_json())


if __name__ == "__main__":
    write(Path(sys.argv[1]))
    print(sys.argv[1])
