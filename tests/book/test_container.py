"""The Dockerfile: what it copies is enough for the wheel, the command runs as an ordinary user, and no address or key is in it.

Docker or Podman builds the image if its service answers. Otherwise the file is only parsed.
"""

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import typer

from diffusecli.cli.app import app
from tests import ROOT
from tests.book.test_docs_commands import blocks, statements
from tests.book.test_package import done, in_the_wheel
from tests.commands import HANG

dockerfile_parse = pytest.importorskip("dockerfile_parse", reason="the extra `dev`")
IGNORED = ROOT / ".dockerignore"


def steps():
    """Stages of the Dockerfile, each a list of instructions and their values."""
    found = []
    for step in dockerfile_parse.DockerfileParser(str(ROOT / "Dockerfile")).structure:
        if step["instruction"] == "FROM":
            found.append([])
        if found and step["instruction"] != "COMMENT":
            found[-1].append((step["instruction"], " ".join(step["value"].split())))
    return found


def values(stage, instruction):
    return [value for name, value in stage if name == instruction]


def copied():
    """Files and folders that are copied from the checkout."""
    from_here = [value.split() for stage in steps() for value in values(stage, "COPY") if not value.startswith("--from")]
    return [word.rstrip("/") for words in from_here for word in words[:-1]]


def test_the_wheel_is_built_in_a_stage_of_its_own():
    build, final = steps()
    assert values(build, "FROM") == ["python:${PYTHON} AS wheel"]
    assert values(final, "FROM") == ["python:${PYTHON}"]
    assert values(final, "COPY") == ["constraints.txt /build/", "--from=wheel /wheels /build/"]


@pytest.mark.parametrize("index", ["", "an-index"])
def test_the_wheel_is_installed_with_known_good_versions_and_the_torch_of_an_index(index, tmp_path):
    """The shell command of the Dockerfile, with a pip that only writes down what it gets."""
    _, final = steps()
    (install,) = [value for value in values(final, "RUN") if "pip install" in value]
    mount, _, script = install.partition(" ")
    assert mount == "--mount=type=secret,id=pip,target=/etc/pip.conf"
    pip = tmp_path / "pip"
    pip.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/got\n')
    pip.chmod(0o755)
    (tmp_path / "diffuse_lm-1-py3-none-any.whl").touch()
    subprocess.run(
        ["sh", "-c", script.replace("/build", str(tmp_path))], check=True, timeout=HANG,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "TORCH_INDEX": index, "EXTRAS": "report,openai"},
    )  # fmt: skip
    common = f"--constraint {tmp_path}/constraints.txt"
    assert (tmp_path / "got").read_text().splitlines() == [
        *([f"install --no-cache-dir --no-deps --index-url an-index {common} torch"] if index else []),
        f"install --no-cache-dir {common} {tmp_path}/diffuse_lm-1-py3-none-any.whl[report,openai]",
    ]


def test_the_command_runs_as_an_ordinary_user():
    _, final = steps()
    names = [name for name, _ in final]
    (user,) = values(final, "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "a number, so that a cluster can see that it is not root"
    assert set(names[names.index("USER") + 1 :]) == {"ENTRYPOINT", "CMD"}
    assert json.loads(values(final, "ENTRYPOINT")[0]) == ["diffuse"]
    assert values(final, "VOLUME") == ["/cache"]
    assert values(final, "WORKDIR") == ["/work"]


def test_the_linter_has_nothing_to_say():
    program = shutil.which("hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        pytest.skip("the extra `dev` has hadolint")
    found = subprocess.run([program, ROOT / "Dockerfile"], capture_output=True, text=True, check=False, timeout=HANG)
    assert (found.returncode, found.stdout) == (0, "")
    broken = subprocess.run([program, "-"], input="FROM python\n", capture_output=True, text=True, check=False, timeout=HANG)
    assert "DL3006" in broken.stdout, "the linter finds mistakes"


def test_no_address_and_no_key_is_in_the_file():
    text = (ROOT / "Dockerfile").read_text()
    assert re.findall(r"https?:|\.org|\.com", text) == []
    assert [
        name for name in re.findall(r"^(?:ARG|ENV) (\w+)", text, re.MULTILINE) if re.search("KEY|TOKEN|SECRET|PASS", name)
    ] == []
    assert 'ARG TORCH_INDEX=""' in text


def test_only_what_is_copied_leaves_the_checkout():
    rules = [line for line in IGNORED.read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert sorted(rule[1:] for rule in rules if rule.startswith("!")) == sorted(copied())
    assert [path for path in copied() if not (ROOT / path).exists()] == []
    again = [rule for rule in rules[1:] if not rule.startswith("!")]
    for path in ("prompts/.env", "diffusecli/cli/__pycache__"):
        assert any(fnmatch.fnmatch(path, rule) for rule in again)


@pytest.mark.slow
def test_what_is_copied_is_enough_for_the_whole_wheel(tmp_path):
    source = tmp_path / "source"
    for path in copied():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / path).is_dir() else shutil.copy
        copy(ROOT / path, source / path, **({"ignore": shutil.ignore_patterns("__pycache__")} if copy is shutil.copytree else {}))
    done(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert set(archive.namelist()) == in_the_wheel()


def test_the_page_runs_commands_that_exist_with_folders_and_arguments_of_the_image():
    page = (ROOT / "docs" / "how-to" / "containers.md").read_text(encoding="utf-8")
    _built, final = steps()
    known = set(re.findall(r"^ARG (\w+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    top = typer.main.get_command(app)
    parent = top.make_context("diffuse", [], resilient_parsing=True)
    runs = 0
    for block in blocks(page):
        for words in statements(block.text) if block.language == "sh" else ():
            assert words[0] == "docker"
            given = {words[i + 1].partition("=")[0] for i, word in enumerate(words) if word == "--build-arg"}
            assert given <= known, words
            if words[1] == "run" and "--entrypoint" not in words:
                mounts = {words[i + 1].partition(":")[2] for i, word in enumerate(words) if word == "-v"}
                assert mounts == {*values(final, "WORKDIR"), *values(final, "VOLUME")}, words
                command = words[words.index("diffuse") + 1 :]
                top.commands[command[0]].make_context(command[0], command[1:], parent=parent)  # raises for what it does not know
                runs += 1
    assert runs >= 4


def engine():
    """A program that builds images and whose service answers; None if there is none."""
    for name in ("docker", "podman"):
        if shutil.which(name) and subprocess.run([name, "info"], capture_output=True, check=False, timeout=HANG).returncode == 0:
            return name
    return None


@pytest.mark.slow
def test_the_image_is_built_and_runs_as_an_ordinary_user():
    if (name := engine()) is None:
        pytest.skip("no container engine answers")

    def run(*words):
        return subprocess.run([name, *map(str, words)], capture_output=True, text=True, check=True, timeout=HANG).stdout

    (base,) = re.findall(r"^ARG PYTHON=(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    if subprocess.run([name, "pull", f"python:{base}"], capture_output=True, check=False, timeout=HANG).returncode:
        pytest.skip(f"{name} cannot fetch the base image")
    run("build", "-t", "diffuse-test", ROOT)
    try:
        assert "sound: " in run("run", "--rm", "--read-only", "diffuse-test", "validate", "prompts", "configs")
        assert run("run", "--rm", "--entrypoint", "id", "diffuse-test", "-u").strip() == "1000"
    finally:
        run("rmi", "diffuse-test")
