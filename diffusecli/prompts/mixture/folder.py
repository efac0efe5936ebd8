"""A mixture as a folder: the files that belong into it, with their texts, and a README that says what is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from diffusecli.files.markdown import markdown_cell
from diffusecli.prompts.mixture.asking import Asked
from diffusecli.prompts.mixture.catalogue import MIXTURE
from diffusecli.prompts.mixture.splits import SPLITS

TITLE = "# A mixture of prompts"

Drawn = Mapping[str, Mapping[str, Sequence[Asked]]]
"""Prompts by split and family."""


def mixture_files(drawn: Drawn, count: int, seed: int) -> Iterator[tuple[str, str]]:
    """Path within the folder and text of every file: `train/uniform/0007.json`, …, `README.md`."""
    for split, families in drawn.items():
        for family, prompts in families.items():
            for number, asked in enumerate(prompts):
                yield f"{split}/{family}/{number:04d}.json", asked.prompt.to_json()
    yield "README.md", _readme(drawn, count, seed)


def _readme(drawn: Drawn, count: int, seed: int) -> str:
    """What the folder holds, as Markdown."""
    names = [split.name for split in SPLITS]
    lines = [
        TITLE,
        "",
        f"Written by `diffuse init-prompt --mixture {count} --seed {seed}`. Each file asks for a draw from a distribution.",
        "The splits share no request.",
        "",
        "| split | prompts | what is in it |",
        "|---|---:|---|",
        *(f"| `{split.name}/` | {sum(map(len, drawn[split.name].values()))} | {split.about} |" for split in SPLITS),
        "",
        f"| family | {' | '.join(f'`{name}/`' for name in names)} | example |",
        f"|---|{'---:|' * len(names)}---|",
        *(_row(family, [drawn[name].get(family, ()) for name in names]) for family in MIXTURE),
    ]
    return "\n".join(lines) + "\n"


def _row(family: str, parts: Sequence[Sequence[Asked]]) -> str:
    example = next(part[0] for part in parts if part)
    return f"| {family} | {' | '.join(str(len(part)) for part in parts)} | {markdown_cell(example.request)} |"
