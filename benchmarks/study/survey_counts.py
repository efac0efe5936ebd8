"""`python -m benchmarks.study.survey_counts TABLE`: print the counts of `data/spending.csv` from the answers of single people.

TABLE is a CSV of `gss_spending` (R package stevedata): one row per person of the General Social Survey 2018. Columns used: sex (1 = female), age,
partyid (0 to 6 from strong Democrat to strong Republican) and the answers (-1 too much, 0 about right, 1 too little).
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from benchmarks.study.survey_prompts import ANSWERS, QUESTIONS

_OLDEST_YOUNG, _INDEPENDENT = 49, 3


def counts(people: pd.DataFrame) -> pd.DataFrame:
    """A row per group and question: how many people gave each answer. Independents, people of other parties, and those without an age are left out."""
    known = people[people.partyid.between(0, 6) & (people.partyid != _INDEPENDENT) & people.age.notna()]
    groups = pd.DataFrame({
        "party": known.partyid.lt(_INDEPENDENT).map({True: "Democrats", False: "Republicans"}),
        "sex": known.sex.map({0: "men", 1: "women"}),
        "age": known.age.le(_OLDEST_YOUNG).map({True: "18 to 49", False: "50 and over"}),
    })  # fmt: skip
    codes = dict(zip((1, 0, -1), ANSWERS, strict=True))
    parts = []
    for question in QUESTIONS:
        answer = known[question].map(codes)
        part = groups.assign(question=question, answer=answer).dropna().groupby([*groups, "question", "answer"]).size()
        parts.append(part.unstack("answer", fill_value=0).reindex(columns=list(ANSWERS), fill_value=0))
    return pd.concat(parts).sort_index().reset_index()


if __name__ == "__main__":
    print(counts(pd.read_csv(Path(sys.argv[1]))).to_csv(index=False, lineterminator="\n"), end="")
