"""The checkout a command is run in: told in the manifest, and not obeyed."""

import os
import shutil
import subprocess

import pytest

from diffusecli.system.checkout import git_state


def git(folder, *words):
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with one commit, as the working directory."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "a.txt").write_text("a\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    monkeypatch.chdir(folder)
    return folder


def test_commit_and_changes_are_told(checkout):
    state = git_state()
    assert len(state["commit"]) == 40
    assert state["dirty"] is False
    (checkout / "a.txt").write_text("b\n")
    assert git_state()["dirty"] is True


def test_outside_a_checkout_nothing_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert git_state() is None


WAYS = {
    "monitor": {"core.fsmonitor": None}, "hook": {}, "clean filter": {"filter.evil.clean": "evil"},
    "filter of a strange name": {"filter.e=v'il.x.clean": "e=v'il.x"}, "filter process": {"filter.evil.process": "evil"},
    "hooks elsewhere": {"core.hooksPath": None},
}  # fmt: skip
"""How a checkout has `git status` run a program: settings that name it, and the filter that a file asks for."""


def plant(checkout, way, marker):
    program = checkout.parent / "bin" / "post-index-change"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho ran >> {marker}\n")
    program.chmod(0o755)
    if way == "hook":
        (checkout / ".git" / "hooks").mkdir(exist_ok=True)
        shutil.copy(program, checkout / ".git" / "hooks")
    for name, wanted in WAYS[way].items():
        git(checkout, "config", name, str(program.parent if name == "core.hooksPath" else program))
        if wanted:
            (checkout / ".git" / "info" / "attributes").write_text(f"a.txt filter={wanted}\n")
    os.utime(checkout / "a.txt", (1, 1))  # git has to look inside


@pytest.mark.parametrize("way", WAYS)
def test_programs_that_a_checkout_names_are_not_run(checkout, tmp_path, way):
    marker = tmp_path / "ran"
    plant(checkout, way, marker)
    assert git_state()["dirty"] is False
    assert not marker.exists()
    subprocess.run(["git", "status", "--porcelain"], cwd=checkout, check=False, capture_output=True)
    assert marker.exists(), "it was not planted well"


def test_a_folder_that_is_a_repository_in_disguise_is_none(checkout, tmp_path, monkeypatch):
    bare = tmp_path / "run"
    git(checkout, "clone", "-q", "--bare", ".", str(bare))
    git(bare, "config", "core.bare", "false")
    git(bare, "config", "core.worktree", str(bare))
    monkeypatch.chdir(bare)
    assert git_state() is None
