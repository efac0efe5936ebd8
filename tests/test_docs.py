"""What is derived from the code is in step with it, and the library holds what its pages say."""

import importlib.util
import json
from pathlib import Path

import pytest

from diffusecli.prompt import read_prompts
from diffusecli.validate import json_schema, validate

ROOT = Path(__file__).resolve().parent.parent
GROUPS = {"names": 2, "countries": 6, "day-date": 6, "fruits": 2, "numbers": 8, "occupations": 3}


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def generated():
    return script("generate").generated()


@pytest.mark.parametrize(
    "path", ["schemas/prompt.schema.json", "schemas/config.schema.json", "schemas/evaluation.schema.json", "docs/config.md"]
)
def test_generated_files_are_in_step_with_the_code(path):
    assert (ROOT / path).read_text(encoding="utf-8") == generated()[path], "run `python docs/generate.py`"


def test_the_page_on_reading_the_report_shows_every_picture_that_is_drawn():
    page = (ROOT / "docs" / "reading-the-report.md").read_text(encoding="utf-8")
    shown = {line.split("](")[1].rstrip(")") for line in page.splitlines() if line.startswith("![")}
    pictures = script("pictures").PICTURES
    assert shown == {f"pictures/{name}.svg" for name in pictures}
    assert all((ROOT / "docs" / name).read_text(encoding="utf-8").startswith("<svg") for name in shown)


def test_the_library_is_valid_even_strictly(monkeypatch):
    monkeypatch.chdir(ROOT)
    found = validate([Path("prompts"), Path("configs")], strict=True)
    assert [str(p) for p in found.problems if p.severity != "notice"] == []
    assert len(found.configs) == 19


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
    import yaml

    validator = jsonschema.Draft7Validator(json_schema("config"))
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        assert list(validator.iter_errors(yaml.safe_load(path.read_text(encoding="utf-8")))) == [], path
    assert list(validator.iter_errors({"model": "m", "output_dir": "o", "alg_config": {"n_iter": 1}})) != []


@pytest.mark.model
def test_the_library_is_valid_for_the_built_in_tokenizer(builtin_model, monkeypatch):
    from diffusecli.validate import token_views

    monkeypatch.chdir(ROOT)
    views, problems = token_views(validate([Path("prompts")]), "smollm2-135m-instruct", print)
    assert problems == []
    assert len(views) == 41
    ten = next(view for view in views if view.alias == "prompts/numbers/rng-0.json")
    assert ten.target_tokens[9] == ("{10}", ("{", "1", "0", "}", "<|im_end|>"))
    assert ten.fed_as_rows > 7 * ten.fed_packed
