"""Configs of the command line's tests."""

import json


def config_text(model, prompt, **algorithm):
    settings = json.dumps({"n_iters": 3, **algorithm})
    return (
        f"model: {model}\ntrain_prompts: [{prompt}]\ntest_prompts: [{prompt}]\nalg_config: {settings}\noutput_dir: results/tiny\n"
    )
