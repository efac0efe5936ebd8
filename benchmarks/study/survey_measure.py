"""`python -m benchmarks.study.survey_measure FOLDER [RUN]`: exact probabilities of the targets of every prompt in a folder, as one JSON object.

Of a run's model, or of the untuned built-in model without a run. Nothing is sampled.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from benchmarks.study.abilities import load
from diffusecli.evaluation.exact import scorer_of
from diffusecli.models.encoding import encode_prompt
from diffusecli.models.source import model_source
from diffusecli.prompts.prompt_files import read_prompts
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.errors import DiffuseError
from diffusecli.training.loss import target_log_probs


def measure(folder: Path, run: Path | None) -> dict[str, list[float]]:
    """File name of a prompt, with its folder -> the model's probability of each target. Raises `DiffuseError` as loading and scoring do."""

    def notice(text: str) -> None:
        print(text, file=sys.stderr)

    base, config = load(RunDir(run) if run else None, untuned=run is None, notice=notice)
    prompts = read_prompts([folder])
    encoded = [encode_prompt(prompt, base.chat) for prompt in prompts]
    found = scorer_of(base, encoded, model_source(config), config.alg_config, notice).log_probs(encoded)
    names = [f"{Path(prompt.alias).parent.name}/{Path(prompt.alias).stem}" for prompt in prompts]
    return {name: np.exp(target_log_probs(e, paths)).tolist() for name, e, paths in zip(names, encoded, found, strict=True)}


if __name__ == "__main__":
    folder, *runs = map(Path, sys.argv[1:])
    try:
        print(json.dumps(measure(folder, runs[0] if runs else None), indent=1))
    except DiffuseError as error:
        sys.exit(str(error))
