"""`diffuse init-prompt --mixture`: the folder it writes."""

import json

import pytest

import diffusecli as diffuse
from diffusecli.prompts.mixture.catalogue import MIXTURE
from diffusecli.prompts.prompt_files import inspect_prompt, prompt_files
from diffusecli.verbs.init_mixture import write_mixture

SPLITS = ("train", "held-out/wordings", "held-out/parameters", "held-out/families")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("mixture") / "mix"
    write_mixture(200, place, seed=7)
    return place


def test_every_file_is_valid_without_errors_or_warnings(folder):
    files = prompt_files([folder])
    found = [inspect_prompt(file) for file in files]
    assert [problems for _, problems in found if problems] == []
    assert all(2 <= len(prompt.targets) <= 120 for prompt, _ in found)


def test_a_split_has_a_folder_per_family_and_a_file_per_prompt(folder):
    assert len(list((folder / "train").glob("*/*.json"))) == 200
    assert json.loads((folder / "train/uniform/0000.json").read_text())["request"]
    families = {path.name for path in (folder / "held-out/families").iterdir()}
    assert families == {name for name, family in MIXTURE.items() if family.held_out}
    assert all(any((folder / split).glob("*/*.json")) for split in SPLITS)


def test_the_readme_says_what_is_in_it_and_how_it_was_made(folder):
    text = (folder / "README.md").read_text()
    assert "`diffuse init-prompt --mixture 200 --seed 7`" in text
    assert "| `train/` | 200 |" in text
    assert all(f"\n| {name} |" in text for name in MIXTURE)
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".json", ".md"}
    assert {path.name for path in folder.iterdir()} == {"README.md", "train", "held-out"}


def test_the_command_writes_the_same_as_the_function_of_the_api(in_process, tmp_path):
    done = in_process("init-prompt", "--mixture", "60", "--seed", "7", "-o", "mix")
    assert done.returncode == 0, done.stderr
    assert "wrote 60 prompts into mix/train" in done.stderr
    assert "next: " in done.stderr
    assert diffuse.init_mixture(60, tmp_path / "other", seed=7) == tmp_path / "other"
    written = [
        {file.relative_to(root): file.read_bytes() for file in root.rglob("*.*")} for root in (tmp_path / "mix", tmp_path / "other")
    ]
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mixture", "60"], "Name the folder with -o"),
        (["--mixture", "5", "-o", "mix"], "--mixture 5: must be"),
        (["--mixture", "60", "--dice", "2d6", "-o", "mix"], "--dice cannot be combined with --mixture"),
        (["--mixture", "60", "--form", "-o", "mix"], "--form cannot be combined with --mixture"),
        (["--mixture", "60", "--wrap", "{%s}", "-o", "mix"], "--wrap cannot be combined with --mixture"),
        (["--mixture", "60", "-o", "mix.json"], "Choose a folder name without .json"),
        (["--mixture", "60", "-o", "full"], "is not empty"),
        (["--mixture", "60", "-o", "full", "--force"], "holds files that do not belong to a mixture"),
        (["--mixture", "60", "-o", "full/notes"], "is a file"),
    ],
)
def test_what_cannot_be_written_is_refused(in_process, tmp_path, words, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes").write_text("mine")
    done = in_process("init-prompt", *words)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert (tmp_path / "full/notes").read_text() == "mine"
    assert not (tmp_path / "mix").exists()


def test_force_replaces_an_older_mixture_and_leaves_none_of_its_files(in_process, tmp_path):
    write_mixture(80, tmp_path / "mix", seed=1)
    done = in_process("init-prompt", "--mixture", "60", "-o", "mix", "--force")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "mix/train").glob("*/*.json"))) == 60
