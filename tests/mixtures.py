"""Folders of many prompts, and a run whose exact probabilities are made up: no model is loaded."""

import json

import numpy as np

from diffusecli.evaluation.exact import Measured
from diffusecli.files.writing import write_json


def prompts_in(folder, families, each):
    """So many prompts of ten targets in every one of these folders, each with a request of its own."""
    for family in families:
        (folder / family).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            fields = {"request": f"{family} {number}", "targets": [f"{{{i}}}" for i in range(1, 11)]}
            (folder / family / f"{number:04}.json").write_text(json.dumps(fields))
    return folder


def run_in(folder):
    """A run without samples."""
    write_json(folder / "run.json", {})
    write_json(folder / "adapter_config.json", {})
    (folder / "config.yaml").write_text("model: m\ntrain_prompts: [p.json]\noutput_dir: o\n")
    return folder


def measured_as(shift_of):
    """In place of `measure`: q is uniform but for the first two targets, between which `shift_of(prompt, mode)` moves.

    That is the exact TVD. With ten targets of .1 a shift of .04 has KL = -(.1 ln 1.4 + .1 ln .6) = .0174.
    """

    def measure(_run, _source, _settings, _retain, _seed, prompts, _notice, *, others=(), **_):
        found = {}
        for prompt in [*prompts, *others]:
            for mode in ("untuned", "lora"):
                q = np.array(prompt.probabilities)
                shift = shift_of(prompt, mode)
                q[:2] += shift, -shift
                found[mode, prompt.digest] = np.log(q)
        return Measured(found, {}, 0.01)

    return measure
