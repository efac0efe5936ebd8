"""What is derived from the code is in step with it, links lead somewhere, and the library holds what its pages say."""

import importlib.util
import json
import math
import re
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import yaml

from diffusecli.prompts.json_schema import json_schema
from diffusecli.prompts.prompt_files import read_prompts
from diffusecli.verbs.validate import validate
from tests import ROOT
from tests.commands import HANG

GROUPS = {"names": 2, "countries": 6, "day-date": 6, "fruits": 2, "numbers": 8, "occupations": 3}


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def generated():
    return script("generate").generated()


GENERATED = (
    "schemas/prompt.schema.json",
    "schemas/config.schema.json",
    "schemas/evaluation.schema.json",
    "docs/config.md",
    "docs/reference/api.md",
    "docs/reference/commands.md",
    "docs/reference/schemas.md",
)


@pytest.mark.parametrize("path", GENERATED)
def test_generated_files_are_in_step_with_the_code(path):
    assert (ROOT / path).read_text(encoding="utf-8") == generated()[path], "run `python docs/generate.py`"


def test_all_that_is_generated_is_compared():
    assert set(generated()) == set(GENERATED)


def test_the_page_of_commands_has_the_same_text_at_any_width(monkeypatch):
    for width in ("20", "500"):
        monkeypatch.setenv("COLUMNS", width)
        assert generated()["docs/reference/commands.md"] == (ROOT / "docs/reference/commands.md").read_text(encoding="utf-8")


def test_the_page_of_commands_has_every_command_and_option_that_help_tells(diffuse):
    page = (ROOT / "docs/reference/commands.md").read_text(encoding="utf-8")
    for command in ("init-prompt", "validate", "train", "sample", "evaluate", "export"):
        section = page.partition(f"\n## diffuse {command}\n")[2].partition("\n## ")[0]
        told = diffuse(command, "--help", COLUMNS="200").stdout
        options = set(re.findall(r"^  (?:-\w, )?(--[a-z-]+)", told, re.MULTILINE))
        assert options == set(re.findall(r"^\| `(?:-\w, )?(--[a-z-]+)", section, re.MULTILINE))


def test_every_picture_is_shown_and_every_one_that_a_script_draws_is_there():
    folder = ROOT / "docs" / "pictures"
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    shown = {
        (page.parent / name).resolve()
        for page in pages
        for name in re.findall(r"^!\[[^]]+\]\(([^)]+)\)", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert shown == set(folder.iterdir()) - {folder / "logo.svg"}
    assert shown >= {folder / f"{name}.svg" for name in script("pictures").PICTURES}
    assert all(path.read_text(encoding="utf-8").startswith("<svg") for path in shown)


def test_the_worked_example_of_the_loss_adds_up_by_targets_and_by_nodes():
    pictures, page = script("pictures"), (ROOT / "docs/explanation/loss.md").read_text(encoding="utf-8")
    page = page.partition("## Several spellings")[0]
    trie, q = pictures.ANSWERS, pictures.MODEL
    likely = [math.prod(q[node] for node in trie.ancestors(leaf)) for leaf in trie.leaves]
    by_target = [-p * math.log(each) for p, each in zip(trie.weights, likely, strict=True)]
    by_node = [-mass * math.log(each) for mass, each in zip(trie.masses, q, strict=True)]
    assert math.fsum(by_target) == pytest.approx(math.fsum(by_node), abs=1e-12)
    tables = re.findall(r"\| ([\d.]+) \|$", page, re.MULTILINE)
    assert tables == [f"{value:.4f}".lstrip("0") for way in (by_target, by_node) for value in (*way, math.fsum(way))]
    assert f"entropy is {trie.entropy:.4f}, so the KL is {math.fsum(by_node) - trie.entropy:.4f}".replace(" 0.", " .") in page
    assert f"{sum(likely):.2f} on target".lstrip("0") in page


def test_the_worked_example_of_spellings_adds_up():
    page = (
        (ROOT / "docs/explanation/loss.md").read_text(encoding="utf-8").partition("## Several spellings")[2].partition("\n## ")[0]
    )
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in re.findall(r"^\|.*\|$", page, re.MULTILINE)][2:]
    assert [[cell for cell in row if cell] for row in rows] == [
        ["seven", ".5", "seven", ".1", ".4", ".125", ".4581"], ["7", ".3", ".375"], ["eight", ".5", "8", ".2", ".2", ".5", ".8047"]
    ]  # fmt: skip
    assert pytest.approx([0.125, 0.375]) == [0.5 * 0.1 / (0.1 + 0.3), 0.5 * 0.3 / (0.1 + 0.3)]
    parts = [-0.5 * math.log(0.1 + 0.3), -0.5 * math.log(0.2)]
    assert [round(part, 4) for part in parts] == [0.4581, 0.8047]
    assert f"L = {sum(parts):.4f} nats" in page
    assert f"lowers it by {0.5 * math.log(2):.4f}".replace("0.", ".") in page
    assert f"here {math.log(2):.4f}".replace("0.", ".") in page


def test_the_page_of_files_lists_the_fields_that_a_run_and_its_samples_have(trained, in_process):
    run, page = Path(trained.output_dir), (ROOT / "docs/reference/files.md").read_text(encoding="utf-8")
    assert in_process("sample", run, "-n", 5, "--max-new-tokens", 4).returncode == 0
    written = {
        "run.json": json.loads((run / "run.json").read_text()),
        "metrics.jsonl": json.loads((run / "metrics.jsonl").read_text().splitlines()[0]),
        "meta.json": json.loads((run / "gen.lora.meta.json").read_text()),
    }
    for name, fields in written.items():
        table = page.partition(f"<!-- fields: {name} -->")[2].partition("\n\n")[2].partition("\n\n")[0]
        cells = [row.split(" | ")[0] for row in table.splitlines()[2:]]
        assert sorted(re.findall(r"`(\w+)`", " ".join(cells))) == sorted(fields), name


def headings(text):
    """The anchors of a page, as Python-Markdown makes them of its headings."""
    text = re.sub(r'^--8<-- "(.+)"$', lambda included: (ROOT / included[1]).read_text(encoding="utf-8"), text, flags=re.MULTILINE)
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    found = set()
    for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", title)
        found.add(
            re.sub(
                r"[-\s]+",
                "-",
                re.sub(r"[^\w\s-]", "", unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()).strip().lower(),
            )
        )
    return found


def pages():
    return [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "prompts/README.md", "configs/README.md")),
            *sorted((ROOT / "docs").rglob("*.md"))]  # fmt: skip


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_to_a_heading_of_it(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?://)([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in headings(target.read_text(encoding="utf-8")), link


def test_links_from_the_book_stay_in_the_book_and_every_page_is_in_its_navigation():
    book = ROOT / "docs"
    for page in book.rglob("*.md"):
        for link in re.findall(r"\]\((?!https?://|#)([^)\s#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).resolve().is_relative_to(book), (page, link)
    listed = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(book)) for page in book.rglob("*.md"))


def test_what_pages_of_one_line_include_has_no_links_to_other_files():
    for page in (ROOT / "docs").rglob("*.md"):
        for name in re.findall(r'^--8<-- "(.+)"$', page.read_text(encoding="utf-8"), re.MULTILINE):
            assert re.findall(r"\]\((?!https?://|#)", (ROOT / name).read_text(encoding="utf-8")) == [], name


def test_the_book_is_built_without_a_warning_and_its_pages_load_nothing_from_elsewhere(tmp_path):
    for name in ("docs", "prompts", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("mkdocs.yml", "SECURITY.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)

    def build():
        command = [Path(sys.executable).with_name("zensical"), "build", "--strict", "--clean"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=HANG, check=False)

    assert build().returncode == 0
    built = sorted((tmp_path / "site").rglob("*.html"))
    assert len(built) >= len(list((ROOT / "docs").rglob("*.md")))
    for page in built:
        text = page.read_text(encoding="utf-8")
        assert re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"?(?:https?:)?//[^ >]+", text) == [], page
    assert not list((tmp_path / "site").rglob("*.py"))
    with (tmp_path / "docs" / "index.md").open("a", encoding="utf-8") as file:
        file.write("\n[gone](install.md#nowhere)\n")
    assert build().returncode != 0


def test_the_library_is_valid_even_strictly(monkeypatch):
    monkeypatch.chdir(ROOT)
    found = validate([Path("prompts"), Path("configs")], strict=True)
    assert [str(p) for p in found.problems if p.severity != "notice"] == []
    assert len(found.configs) == 22


@pytest.mark.parametrize(("group", "files"), GROUPS.items())
def test_the_six_groups_are_whole(monkeypatch, group, files):
    monkeypatch.chdir(ROOT)
    assert len(read_prompts([f"prompts/{group}"])) == files


def test_library_prompts_satisfy_the_schema():
    jsonschema = pytest.importorskip("jsonschema", reason="checks with an independent implementation of JSON Schema")
    schema = json_schema("prompt")
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.Draft7Validator.check_schema(json_schema("config"))
    validator = jsonschema.Draft7Validator(schema)
    for path in sorted((ROOT / "prompts").rglob("*.json")):
        assert list(validator.iter_errors(json.loads(path.read_text(encoding="utf-8")))) == [], path
    assert list(validator.iter_errors({"request": "r"})) != []


def test_library_configs_satisfy_the_schema():
    jsonschema = pytest.importorskip("jsonschema", reason="checks with an independent implementation of JSON Schema")
    validator = jsonschema.Draft7Validator(json_schema("config"))
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        assert list(validator.iter_errors(yaml.safe_load(path.read_text(encoding="utf-8")))) == [], path
    assert list(validator.iter_errors({"model": "m", "output_dir": "o", "alg_config": {"n_iter": 1}})) != []


@pytest.mark.model
def test_the_library_is_valid_for_the_built_in_tokenizer(builtin_model, monkeypatch):
    from diffusecli.verbs.validate import token_views

    monkeypatch.chdir(ROOT)
    views, problems = token_views(validate([Path("prompts")]), "smollm2-135m-instruct", print)
    assert problems == []
    assert len(views) == 44
    ten = next(view for view in views if view.alias == "prompts/numbers/rng-0.json")
    assert ten.target_tokens()[9] == ("{10}", ("{", "1", "0", "}", "<|im_end|>"))
    assert ten.fed_as_rows > 7 * ten.fed_packed
