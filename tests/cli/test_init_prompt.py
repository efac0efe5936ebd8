"""What `diffuse init-prompt` prints, and when it writes a file."""

import json

BINOMIAL_WEIGHTS = [
    0.107374182, 0.268435456, 0.301989888, 0.201326592, 0.088080384, 0.0264241152,
    0.005505024, 0.000786432, 7.3728e-05, 4.096e-06, 1.024e-07,
]  # fmt: skip


def test_init_prompt_gives_the_very_prompt_of_the_originals_readme(diffuse):
    done = diffuse("init-prompt", "--binomial", 10, 0.2)
    prompt = json.loads(done.stdout)
    assert done.returncode == 0
    assert prompt == {
        "request": "Generate a random number between 0 and 10 drawn from the binomial distribution B(10, 0.2). "
        "Output only the number between two curly braces, like this: {number}. Don't output code.",
        "response": [""],
        "targets": [f"{{{k}}}" for k in range(11)],
        "weights": BINOMIAL_WEIGHTS,
    }
    assert "30.2 %" in done.stderr


def test_init_prompt_writes_a_file_once_and_replaces_it_only_when_forced(in_process, tmp_path):
    assert in_process("init-prompt", "--binomial", 2, 0.5, "-o", "b.json").returncode == 0
    before = (tmp_path / "b.json").read_text()
    refused = in_process("init-prompt", "--binomial", 3, 0.5, "-o", "b.json")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "b.json: already exists" in refused.stderr
    assert (tmp_path / "b.json").read_text() == before
    assert in_process("init-prompt", "--binomial", 3, 0.5, "-o", "b.json", "--force", "--no-preview").returncode == 0
    assert len(json.loads((tmp_path / "b.json").read_text())["targets"]) == 4
