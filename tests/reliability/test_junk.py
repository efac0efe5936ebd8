"""Junk in every kind of file is a sentence: the benchmark's machinery with fewer examples, and proof that it would notice."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import strategies as st

from diffusecli.system.errors import InputError
from tests.commands import HANG
from tests.reliability.junk import Kind, fuzz, try_kind


@pytest.mark.slow
def test_no_junk_in_any_file_is_a_traceback_or_touches_anything_outside():
    outcomes = fuzz(400)
    assert sum(outcome.examples for outcome in outcomes) >= 350
    assert {outcome.kind: outcome.failures for outcome in outcomes if outcome.failures} == {}
    assert sum(outcome.refused for outcome in outcomes) > 150


def raises(_folder, _content):
    raise ZeroDivisionError


def refuses(_folder, _content):
    raise InputError("file: is junk, mend it")


def refuses_without_a_word(_folder, _content):
    raise InputError(" ")


def writes_outside(folder, _content):
    (folder.parent / "outside").write_text("x")


def follows_a_link(folder, _content):
    (folder / "link").symlink_to(folder.parent)
    (folder / "link" / "outside").write_text("x")


def deletes_outside(folder, _content):
    (folder.parent / "precious").unlink()


def runs_a_program(_folder, _content):
    subprocess.run(["true"], check=True)


def loops(_folder, _content):
    while True:
        pass


@pytest.mark.parametrize(
    ("feed", "told"),
    [
        (raises, "ZeroDivisionError"),
        (refuses_without_a_word, "says nothing"),
        (writes_outside, "outside its folder: writes"),
        (follows_a_link, "outside its folder: writes"),
        (deletes_outside, "outside its folder: os.remove"),
        (runs_a_program, "outside its folder: subprocess.Popen"),
        (loops, "TooSlow"),
    ],
)
def test_the_fuzzer_notices(feed, told, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.reliability.junk.PATIENCE", 0.2 if feed is loops else HANG)
    (tmp_path / "precious").write_text("x")
    outcome = try_kind(Kind("probe", st.just(b"content"), feed, 1), 1, tmp_path)
    assert any(where.startswith(told) for where in outcome.failures)
    assert next(content for _, content, _ in outcome.failures.values()) == b"content"


def test_the_fuzzer_is_content_with_a_sentence_and_with_writing_in_its_folder(tmp_path):
    def writes_inside(folder, content):
        Path(folder / "out").write_bytes(content)
        os.replace(folder / "out", folder / "there")

    for feed, refused in ((refuses, 1), (writes_inside, 0)):
        outcome = try_kind(Kind("probe", st.just(b"content"), feed, 1), 1, tmp_path)
        assert (outcome.failures, outcome.refused, outcome.examples) == ({}, refused, 1)
