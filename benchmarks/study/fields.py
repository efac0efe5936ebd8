"""People with fields: the commands, and how many different first names, birthplaces and careers a tuned model gives for one of the untuned model.

The untuned model does not write the five lines that are requested. So it is also shown one whole person, as its own earlier answer, and its answers begin
with the first line's heading. Only well-formed fields count.
"""

from __future__ import annotations

import csv
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.study.stages import WHERE, Journal, Stage, is_done
from benchmarks.study.tasks import MODEL
from diffusecli.evaluation.distinctness import distinct_of, normalised
from diffusecli.files.paths import find
from diffusecli.files.writing import write_text
from diffusecli.prompts.prompt import Message, Prompt

PIECE = "fields"
FOLDER = WHERE / PIECE
RUN, UNTUNED = FOLDER / "people-0", FOLDER / "untuned"
PROMPT, TABLE = "prompts/people/fictitious-people-5000.json", "prompts/people/people.csv"
ANSWERS, TOKENS = 300, 100  # the five lines take 50 to 70 tokens

HEADINGS = {"Name": "name", "Gender": "gender", "Date of birth": "born", "Birthplace": "birthplace", "Career": "career"}
"""Heading of a line -> column of the table."""

EXAMPLE = {
    "Name": "Maren Holt", "Gender": "female", "Date of birth": "14 March 1962", "Birthplace": "Bergen, Norway", "Career": "Marine biologist",
}  # fmt: skip

PLACEHOLDERS = {
    "Name": "full name", "Gender": "gender", "Date of birth": "day month year", "Birthplace": "city, country", "Career": "career",
}  # fmt: skip
BEGINNING = "Name: {"
"""Of each answer of the untuned model. Otherwise half of its answers have no line of the form."""
_TEMPLATE = """{% if messages[0]['role'] != 'system' %}<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
{% endif %}{% for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['role'] == 'assistant' %}BEGINNING{% endif %}{{ message['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
BEGINNING{% endif %}""".replace("BEGINNING", f"{{{{ '{BEGINNING}' }}}}")
"""The model's own chat template, which also begins each answer."""

Line = dict[str, Any]
Fields = dict[str, str]
"""Heading -> value of one answer."""


def first_name(name: str) -> str:
    """The first word of a name.

    >>> first_name("Ann Mary Lee")
    'Ann'
    """
    return name.split(maxsplit=1)[0]


@dataclass(frozen=True)
class Compared:
    """What is counted."""

    name: str
    heading: str
    value: Callable[[str], str]  # the part of the field that is counted


COMPARED = (
    Compared("first name", "Name", first_name),
    Compared("birthplace", "Birthplace", str),
    Compared("career", "Career", str),
)


def request() -> str:
    """The request for five lines."""
    form = in_lines(PLACEHOLDERS)
    return f"Invent a person who has never lived. Write these five lines, each value between two curly braces:\n{form}"


def one_shot() -> Prompt:
    """A conversation in which the request for five lines is answered with the example, and made again."""
    begun = in_lines(EXAMPLE).removeprefix(BEGINNING)
    asked = Message(role="user", content=request())
    return Prompt(messages=(asked, Message(role="assistant", content=begun), asked), targets=(), eos=False)


def in_lines(fields: Mapping[str, str]) -> str:
    r"""A person as the prompt has it.

    >>> in_lines({"Name": "Ann Lee", "Gender": "female"})
    'Name: {Ann Lee}\nGender: {female}'
    """
    return "\n".join(f"{heading}: {{{value}}}" for heading, value in fields.items())


def stages() -> Iterator[Stage]:
    """All commands."""
    yield WRITTEN
    yield _ONE_SHOT
    yield _TRAINED
    yield _TUNED


_FILE = FOLDER / "prompts" / "one-shot.json"
WRITTEN = Stage(f"{PIECE}/prompts", ("benchmarks.study.fields", str(FOLDER)), FOLDER / "written", prints=True, minutes=0.2)
_HOW = ("-n", str(ANSWERS), "--max-new-tokens", str(TOKENS), "--seed", "0", "--format", "json")
_ONE_SHOT = Stage(
    f"{PIECE}/untuned", ("diffusecli", "sample", str(UNTUNED), "--mode", "untuned", "--prompt", str(_FILE), *_HOW, "-o", str(FOLDER / "one-shot.json")),
    FOLDER / "one-shot.json", (WRITTEN.product,), minutes=6,
)  # fmt: skip
_TRAINED = Stage(
    f"{PIECE}/train",
    ("diffusecli", "train", "configs/fictitious-people-5000.yaml", "--set", "generate=false", "--set", "seed=0", "--set", f"output_dir={RUN}"),
    RUN / "run.json", fills_folder=True, minutes=32,
)  # fmt: skip
_TUNED = Stage(
    f"{PIECE}/lora", ("diffusecli", "sample", str(RUN), "--prompt", PROMPT, *_HOW, "-o", str(FOLDER / "tuned.json")),
    FOLDER / "tuned.json", (_TRAINED.product,), minutes=6,
)  # fmt: skip


def write(folder: Path) -> None:
    """Write the prompt with an example, and the config of the untuned model that `sample` needs, with its chat template."""
    write_text(folder / "prompts" / "one-shot.json", one_shot().to_json())
    write_text(folder / "untuned" / "chat_template.jinja", _TEMPLATE)
    text = f"model: {MODEL}\nchat_template: {folder / 'untuned' / 'chat_template.jinja'}\ntest_prompts: [{folder / 'prompts'}]\noutput_dir: {folder / 'untuned'}\n"
    write_text(folder / "untuned" / "config.yaml", text)


_LINE = re.compile(r"\s*([^:{}]+?)\s*:\s*(?:\{\s*([^{}]*[^{}\s])\s*\}|([^{}]*[^{}\s]))\s*")


def fields_of(answer: str) -> Fields:
    r"""The well-formed fields of the first person in an answer: lines `Heading: {value}`, or without both braces, before a heading comes again.

    Placeholders of the request are no values. The last line may have been cut, so it needs its braces.

    >>> fields_of("Name: {Ann Lee}\nGender: female\nCareer: {}\nBirthplace: {city, country}\nName: {Bob}\nCareer: {Dentist}")
    {'Name': 'Ann Lee', 'Gender': 'female'}
    >>> fields_of("Name: {Ann Lee\nCareer: Dent")
    {}
    """
    found: Fields = {}
    every = answer.splitlines()
    for place, line in enumerate(every, 1):
        match = _LINE.fullmatch(line)
        if match and match[1] in HEADINGS and (match[2] or place < len(every)):
            if match[1] in found:
                break
            found[match[1]] = match[2] or match[3]
    return {heading: value for heading, value in found.items() if normalised(value) != PLACEHOLDERS[heading]}


def lines(journal: Journal) -> Iterator[Line]:
    """A line per field and kind of comparison: with the values that repeat the example, and without."""
    if not (is_done(_TUNED, journal) and is_done(_ONE_SHOT, journal)):
        return
    tuned, untuned = (_answers(stage.product) for stage in (_TUNED, _ONE_SHOT))
    untuned = [BEGINNING + answer for answer in untuned]
    with find(TABLE).place.open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    yield from compare(tuned, untuned, table)


def _answers(path: Path) -> list[str]:
    (answers,) = json.loads(path.read_text(encoding="utf-8")).values()
    return list(answers)


def compare(tuned: Sequence[str], untuned: Sequence[str], table: Sequence[Mapping[str, str]]) -> Iterator[Line]:
    """The lines of the CSV file. `copied` counts values of the tuned model's that are in its training table."""
    of_tuned, of_untuned = ([fields_of(answer) for answer in some] for some in (tuned, untuned))
    about = {
        "tuned_answers": len(tuned), "tuned_complete": sum(map(is_complete, of_tuned)),
        "untuned_answers": len(untuned), "untuned_complete": sum(map(is_complete, of_untuned)),
        "untuned_repeats": sum(map(repeats, of_untuned)),
    }  # fmt: skip
    for one in COMPARED:
        after, before = (values_of(some, one) for some in (of_tuned, of_untuned))
        known = {normalised(one.value(row[HEADINGS[one.heading]])) for row in table}
        own = normalised(one.value(EXAMPLE[one.heading]))
        new = Counter({text: count for text, count in after.items() if text not in known})
        copied = {
            "tuned_distinct": len(after), "tuned_new_distinct": len(new), "tuned_new": new.total(), "table_distinct": len(known),
        }  # fmt: skip
        for kept, some in (("with", before), ("without", Counter({text: count for text, count in before.items() if text != own}))):
            yield {**about, "field": one.name, "repeats": kept, **copied, "untuned_distinct": len(some), **ratio(after, some)}


def is_complete(fields: Mapping[str, str]) -> bool:
    """Whether an answer has all five fields."""
    return len(fields) == len(HEADINGS)


def repeats(fields: Mapping[str, str]) -> bool:
    """Whether an answer has fields, and all of them have the values of the example."""
    return bool(fields) and all(normalised(value) == normalised(EXAMPLE[heading]) for heading, value in fields.items())


def values_of(answers: Sequence[Fields], one: Compared) -> Counter[str]:
    """The counted values, normalised as `evaluate` does for different answers."""
    return Counter(normalised(one.value(fields[one.heading])) for fields in answers if one.heading in fields)


def ratio(after: Counter[str], before: Counter[str]) -> Line:
    """How many different values equally many answers of both models are expected to have, and the ratio with its 95 % interval.

    Rarefied without replacement to one answer fewer than the smaller sample has: the jackknife's error of `distinct_of` needs one to spare. The
    interval is that of the logarithm of the ratio, with the errors of both. With fewer than two such answers there are no figures.
    """
    draws = min(after.total(), before.total()) - 1
    found: Line = {"tuned_n": after.total(), "untuned_n": before.total(), "draws": max(draws, 0)}
    if draws < 1:
        return found
    (a, a_error), (b, b_error) = (distinct_of(some, draws) for some in (after, before))
    spread = 1.96 * math.hypot(a_error / a, b_error / b)
    found |= {"tuned_drawn": a, "untuned_drawn": b, "ratio": a / b}
    return found if math.isnan(spread) else found | {"ratio_low": a / b * math.exp(-spread), "ratio_high": a / b * math.exp(spread)}


if __name__ == "__main__":
    write(Path(sys.argv[1]))
    print(sys.argv[1])
