"""The packages that are handed out: what they hold, and that the command works where there is no checkout.

The wheel is built from the source distribution and installed into an environment of its own, which sees the packages of
this one but not the checkout. Nothing is fetched.
"""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from diffusecli import __version__
from diffusecli.prompts.prompt_files import read_prompt
from tests import ROOT
from tests.commands import HANG

LIBRARY = "diffusecli/library"
RNG = "prompts/numbers/rng-0.json"

pytestmark = pytest.mark.slow


def run(*words, cwd, **environment):
    """What a command does in a folder, apart from this environment's own settings of Python."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [*map(str, words)], cwd=cwd, env={**own, "OMP_NUM_THREADS": "1", "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, **environment},
        capture_output=True, text=True, timeout=HANG, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def done(*words, cwd):
    finished = run(*words, cwd=cwd)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def sources():
    """The files that belong to the project, hidden ones left out; in an unpacked source distribution those that it brought."""
    if (ROOT / ".git").exists():
        told = done("git", "ls-files", cwd=ROOT).splitlines()
    else:
        told = [line for line in (ROOT / "diffuse_lm.egg-info" / "SOURCES.txt").read_text().splitlines() if "egg-info" not in line]
    return sorted(path for path in told if not path.startswith(".") and path != "setup.cfg" and (ROOT / path).is_file())


def in_the_wheel():
    """What a wheel must hold: the code, the library, and what the build adds."""
    code = {path for path in sources() if path.startswith("diffusecli/")}
    library = {
        f"{LIBRARY}/{path}" for path in sources()
        if path.startswith(("prompts/", "configs/", "schemas/")) and not path.startswith("prompts/sources/")
    }  # fmt: skip
    about = f"diffuse_lm-{__version__}.dist-info"
    made = {f"{about}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt", "licenses/LICENSE")}
    return code | library | made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The source distribution, built from a copy: building writes beside the sources."""
    place = tmp_path_factory.mktemp("sdist")
    for path in sources():
        (place / "source" / path).parent.mkdir(parents=True, exist_ok=True)
        (place / "source" / path).write_bytes((ROOT / path).read_bytes())
    build = "import sys, setuptools.build_meta as b; b.build_sdist(sys.argv[1])"
    done(sys.executable, "-c", build, place, cwd=place / "source")
    return place / f"diffuse_lm-{__version__}.tar.gz"


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    place = tmp_path_factory.mktemp("wheel")
    done(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", place, sdist, cwd=place)
    return place / f"diffuse_lm-{__version__}-py3-none-any.whl"


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder with the commands of an environment that has the wheel."""
    place = tmp_path_factory.mktemp("installed")
    done(sys.executable, "-m", "venv", "--without-pip", "venv", cwd=place)
    python = place / "venv" / "bin" / "python"
    done(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", wheel, cwd=place)
    lib = Path(done(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=place).strip())
    (lib / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")  # its .pth files are not followed: no checkout
    return python.parent


@pytest.fixture
def diffuse(installed, tmp_path, tiny_cache):
    """Run the installed command in an empty folder."""
    return lambda *words, **environment: run(
        installed / "diffuse", *words, cwd=tmp_path, DIFFUSE_CACHE=str(tiny_cache), **environment
    )


def test_the_source_distribution_holds_every_source_and_nothing_else(sdist):
    with tarfile.open(sdist) as archive:
        held = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    made = {path for path in held if path in ("PKG-INFO", "setup.cfg") or path.startswith("diffuse_lm.egg-info/")}
    assert held - made == set(sources())


def test_the_wheel_holds_the_package_and_its_library_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        (entry_points,) = (archive.read(name).decode() for name in held if name.endswith("entry_points.txt"))
    assert held == in_the_wheel()
    assert sum(path.startswith(LIBRARY) for path in held) > 60
    assert "diffuse = diffusecli.__main__:main" in entry_points


def test_the_checkout_is_out_of_sight(installed, tmp_path):
    told = done(
        installed / "python", "-c", "import diffusecli, sys; print(diffusecli.__file__, *sys.path, sep='\\n')", cwd=tmp_path
    )
    assert Path(told.splitlines()[0]).is_relative_to(installed.parent)
    assert str(ROOT) not in told.splitlines()


def test_both_ways_to_call_it_tell_the_version(installed, tmp_path):
    for command in ([installed / "diffuse"], [installed / "python", "-m", "diffusecli"]):
        assert done(*command, "--version", cwd=tmp_path) == f"diffuse {__version__}\n"


def test_the_library_is_valid_from_an_empty_folder_and_one_notice_tells_where_it_is(diffuse, installed):
    checked = diffuse("validate", "prompts", "configs")
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.endswith(
        "sound: 44 prompts in 522 wordings and 48 held out, 22 configs; 0 errors, 0 warnings, 3 notices\n"
    ), checked.stdout
    told = [line for line in checked.stderr.splitlines() if "library" in line]
    assert len(told) == 1
    assert told[0].startswith("prompts: not found here. ")
    assert str(installed.parent) in told[0]


def test_a_prompt_is_written_without_the_library(diffuse):
    written = diffuse("init-prompt", "--binomial", "10", "0.2", "--no-preview")
    assert json.loads(written.stdout)["targets"] == [f"{{{k}}}" for k in range(11)]
    assert written.stderr == ""


@pytest.mark.parametrize("kind", ["prompt", "config", "evaluation"])
def test_schemas_are_at_hand(diffuse, kind):
    assert diffuse("validate", "--schema", kind).stdout == (ROOT / "schemas" / f"{kind}.schema.json").read_text()


@pytest.mark.model
def test_the_plan_of_the_quickstart_is_shown(installed, tmp_path):
    plan = run(installed / "diffuse", "train", "configs/quickstart.yaml", "--dry-run", cwd=tmp_path)
    assert plan.returncode == 0, plan.stderr
    assert "- prompts/numbers/rng-0.json" in plan.stdout
    assert list(tmp_path.iterdir()) == []


def listing(folder):
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def test_training_sampling_and_evaluation_work_from_an_empty_folder(diffuse, installed, tmp_path, tiny_model_folder):
    (library,) = installed.parent.glob(f"lib/*/site-packages/{LIBRARY}")
    before = listing(library)
    trained = diffuse("train", "configs/quickstart.yaml", "--set", f"model={tiny_model_folder}", "--set", "alg_config.n_iters=1",
                      "--set", "retain=off", "--set", "generate=false")  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    assert trained.stderr.count("Using the bundled copy") == 1
    told = json.loads((tmp_path / "results" / "quickstart" / "run.json").read_text())
    assert told["prompt_sha256"][RNG] == read_prompt(ROOT / RNG).digest
    sampled = diffuse("sample", "--prompt", RNG, "-n", "20", "--max-new-tokens", "3")
    assert sampled.returncode == 0, sampled.stderr
    judged = diffuse("evaluate", "results/quickstart", "--json")
    assert judged.returncode == 0, judged.stderr
    (row,) = (row for row in json.loads(judged.stdout)["rows"] if row["n"])
    assert (row["prompt"], row["n"]) == (RNG, 20)
    assert listing(library) == before
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_a_file_of_ones_own_comes_before_that_of_the_library(diffuse, tmp_path):
    (tmp_path / RNG).parent.mkdir(parents=True)
    (tmp_path / RNG).write_text('{"request": "Say a letter.", "targets": ["{a}", "{b}"]}')
    own = json.loads(diffuse("validate", "prompts/numbers", "--json").stdout)
    assert [(prompt["file"], prompt["targets"]) for prompt in own["prompts"]] == [(RNG, 2)]
    mixed = diffuse("validate", RNG, "prompts/fruits/fruit-0.json", "--json")
    assert [prompt["targets"] for prompt in json.loads(mixed.stdout)["prompts"]] == [2, 81]
    assert mixed.stderr.startswith("prompts/fruits/fruit-0.json: not found here. ")
