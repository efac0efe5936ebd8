"""The library's prompts in many wordings are what the documented command writes."""

import json

import pytest

from diffusecli.files.paths import find
from diffusecli.prompts.prompt_files import read_prompt


@pytest.mark.parametrize(
    ("name", "options"), [("one-to-ten", ["--uniform", "1", "10"]), ("binomial-10-0.2", ["--binomial", "10", "0.2"])]
)
def test_the_librarys_wordings_are_those_that_init_prompt_writes(name, options, in_process):
    done = in_process("init-prompt", *options, "--wordings", "240", "--held-out", "24")
    kept = read_prompt(f"prompts/any-wording/{name}.json")
    assert json.loads(done.stdout) == json.loads(find(f"prompts/any-wording/{name}.json").place.read_text())
    assert (len(kept.requests), len(kept.held_out_requests)) == (240, 24)
