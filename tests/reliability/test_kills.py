"""A few random moments of each activity in every test run; `python -m tests.reliability.kills` tries hundreds."""

import random

import pytest

from tests.reliability import kills


@pytest.mark.slow
def test_whatever_is_killed_leaves_whole_files_and_goes_on_to_the_same_end():
    seed = random.randrange(10**6)
    seen = kills.run(moments=7, seed=seed, say=print)
    assert seen.faults == [], f"with seed {seed}"
    assert seen.moments.total() >= 7, "kills must meet running processes"
    assert seen.resumed >= 7


def test_half_a_file_is_noticed(tmp_path):
    (tmp_path / "whole.json").write_text("{}")
    assert kills.halves(tmp_path) == []
    for name, text in (("a.json", '{"a": '), ("b.jsonl", '{}\n{"a"'), ("c.html", "<html>"), ("d.safetensors", "\x05")):
        (tmp_path / name).write_text(text)
    assert [fault.split(" ")[0] for fault in kills.halves(tmp_path)] == ["a.json", "b.jsonl", "c.html", "d.safetensors"]
