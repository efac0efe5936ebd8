"""`python -m benchmarks.study.survey_prompts FOLDER`: write a prompt per group and question of a real survey, a folder per group.

The survey is the General Social Survey 2018 (NORC at the University of Chicago): does the country spend too little, about the right amount or too
much on something? `data/spending.csv` counts the answers of 8 groups (party, sex, age) to 6 questions, without survey weights. It has no single
person, and was made by `survey_counts.py` from the table `gss_spending` of the R package stevedata (GPL-2), of which nothing else is kept. NORC gives
the data of the survey to everybody, and asks to be cited. Three of the questions (environment, defense, foreign aid) had two wordings in the survey. Their
answers are counted together.
"""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from diffusecli.files.writing import write_text
from diffusecli.prompts.prompt import Prompt

TABLE = Path(__file__).parent / "data" / "spending.csv"
ANSWERS = ("too little", "about right", "too much")
QUESTIONS = {
    "natenvir": "the environment",
    "natarms": "the military and national defense",
    "nataid": "foreign aid",
    "natroad": "highways and bridges",
    "natchld": "assistance for child care",
    "natenrgy": "alternative sources of energy",
}
"""Column of the survey -> what the money is spent on, in our words."""


@dataclass(frozen=True)
class Group:
    """People who have three attributes in common."""

    party: str
    sex: str
    age: str

    @property
    def name(self) -> str:
        """In names of files and stages."""
        return f"{self.party}-{self.sex}-{self.age}".replace(" ", "-").lower()

    @property
    def described(self) -> str:
        """In requests."""
        sex, age = (
            {"men": "man", "women": "woman"}[self.sex],
            {"18 to 49": "aged 18 to 49", "50 and over": "aged 50 or over"}[self.age],
        )
        party = {"Democrats": "a Democrat", "Republicans": "a Republican"}[self.party]
        return f"A {sex} {age}, {party}"


Counts = Mapping[Group, Mapping[str, np.ndarray]]
"""Group -> question -> people by answer [3]."""


@cache
def read_counts() -> Counts:
    """The table of the survey."""
    found: dict[Group, dict[str, np.ndarray]] = {}
    for line in csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines()):
        own = found.setdefault(Group(line["party"], line["sex"], line["age"]), {})
        own[line["question"]] = np.array([int(line[answer]) for answer in ANSWERS])
    return found


def prompt_of(group: Group, question: str, people: np.ndarray) -> Prompt:
    """The request ends with the group and the question, so that prompts share most of their tokens. Weights are the group's shares."""
    request = (
        "In a survey of 2018, adults in the United States said whether the country spends {too little}, {about right} or {too much} on something. "
        "Answer as a person drawn at random from a group would, with one of these three in curly braces and nothing else. "
        f"{group.described}, on {QUESTIONS[question]}:"
    )
    return Prompt(request=request, targets=tuple(f"{{{answer}}}" for answer in ANSWERS), weights=tuple(people / people.sum()))


def write(folder: Path) -> None:
    """Write all prompts into a new folder."""
    shutil.rmtree(folder / "prompts", ignore_errors=True)
    for group, answers in read_counts().items():
        for question, people in answers.items():
            write_text(folder / "prompts" / group.name / f"{question}.json", prompt_of(group, question, people).to_json())


if __name__ == "__main__":
    write(Path(sys.argv[1]))
    print(sys.argv[1])
