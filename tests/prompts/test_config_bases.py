"""`base: other.yaml`: what is joined, where files are searched, and where mistakes are reported."""

import json
import re

import pytest

from diffusecli.prompts.config_files import inspect_config, read_config
from diffusecli.prompts.json_schema import json_schema
from diffusecli.system.errors import InputError

BASE = """\
model: owner/base
train_prompts: [p.json]
output_dir: results/{config}
alg_config:
  n_iters: 7
  learning_rate: 0.002
lora: {r: 8}
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(**texts):
        for name, text in texts.items():
            path = tmp_path / f"{name.replace('__', '/')}.yaml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def test_mappings_are_joined_and_lists_and_values_replaced(files):
    files(
        base=BASE,
        middle="base: base.yaml\nalg_config: {n_iters: 9}\n",
        own="base: middle.yaml\nmodel: owner/own\ntrain_prompts: []\n",
    )
    config = read_config("own.yaml")
    assert (config.model, config.train_prompts, config.output_dir) == ("owner/own", (), "results/own")
    assert (config.alg_config.n_iters, config.alg_config.learning_rate, config.lora.r) == (9, 0.002, 8)
    assert read_config("own.yaml", ["alg_config.n_iters=3"]).alg_config.n_iters == 3


def test_files_are_searched_beside_the_file_that_names_them(files, prompt_file):
    folder = files(shared__base=BASE.replace("p.json", "p.json, 'd*.json', here.json"), own="base: shared/base.yaml\n")
    for name in ("shared/p.json", "shared/d1.json", "shared/d2.json", "here.json"):
        prompt_file(folder / name)
    assert read_config("own.yaml").train_prompts == ("shared/p.json", "shared/d1.json", "shared/d2.json", "here.json")


def test_a_mistake_is_reported_in_the_file_that_has_it(files):
    files(base=BASE.replace("n_iters: 7", "n_itres: 7"), own="base: base.yaml\nlora:\n  r: x\n")
    found = [f"{p.path}:{p.line}:{p.column} {p.message}" for p in inspect_config("own.yaml").problems]
    assert sorted(found, reverse=True) == [
        "own.yaml:3:3 'lora.r' must be 'auto' or a whole number, not 'x'",
        "base.yaml:5:3 unknown key 'n_itres'",
    ]


def test_a_mistake_in_a_list_is_reported_at_its_item_in_the_base_even_after_a_pattern(files, prompt_file):
    """The pattern stands for two files, so the wrong name is the fourth of the joined list; it is the third item, in line 5, of the base."""
    listed = "model: m\ntrain_prompts:\n  - p.json\n  - 'd*.json'\n  - $X.json\n  - 5\noutput_dir: o\n"
    folder = files(shared__base=listed, own="base: shared/base.yaml\ntest_prompts: [p.json]\n")
    for name in ("shared/p.json", "shared/d1.json", "shared/d2.json"):
        prompt_file(folder / name)
    found = [(p.path, p.line, p.column, p.message) for p in inspect_config("own.yaml").problems]
    assert found == [
        ("shared/base.yaml", 6, 5, "'train_prompts[3]' must be a string, not 5"),
        ("shared/base.yaml", 5, 5, "$X.json: '$X' is not replaced by a value"),
    ]
    files(own="base: shared/base.yaml\ntrain_prompts:\n  - p.json\n  - $Y.json\n")
    assert [(p.path, p.line) for p in inspect_config("own.yaml").problems] == [("own.yaml", 4)]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"own": "base: own.yaml\n"}, "own.yaml:1:1: the bases form a circle: own.yaml -> own.yaml. Name another file"),
        (
            {"own": "base: b.yaml\n", "b": "base: own.yaml\n"},
            "b.yaml:1:1: the bases form a circle: own.yaml -> b.yaml -> own.yaml. Name another file",
        ),
        (
            {"own": "base: c.yaml\n", "c": "base: b.yaml\n", "b": "base: c.yaml\n"},
            "b.yaml:1:1: the bases form a circle: c.yaml -> b.yaml -> c.yaml. Name another file",
        ),
        ({"own": "base: owm.yaml\n"}, "own.yaml:1:1: the base owm.yaml does not exist. Check the path"),
        (
            {"own": "base: owm.yaml\n", "owmm": BASE},
            r"own.yaml:1:1: the base owm.yaml does not exist. Did you mean 'owmm.yaml'\?",
        ),
        (
            {"own": "base: bass.yaml\n", "bases": BASE},
            r"own.yaml:1:1: the base bass.yaml does not exist. Did you mean 'bases.yaml'\?",
        ),
        ({"own": "base: [b.yaml]\n"}, "own.yaml:1:1: 'base' must be the path of a config. Write base: other.yaml"),
        ({"own": "base: p.json\n"}, "own.yaml:1:1: p.json is not a config. Use a .yaml file"),
        ({"own": "base: $X.yaml\n"}, r"own.yaml:1:1: \$X.yaml: '\$X' is not replaced by a value"),
        ({"own": "base: b.yaml\n", "b": "- 1\n"}, "b.yaml:1:1: the file must be a mapping of keys to values"),
        ({"own": "base: b.yaml\n", "b": "a: [\n"}, "b.yaml:2:1: "),
    ],
)
def test_a_base_that_is_none_is_refused(files, texts, message):
    files(**texts)
    with pytest.raises(InputError, match=message):
        read_config("own.yaml")


def test_the_schema_asks_for_a_model_or_a_base():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(json.dumps(json_schema("config")))
    jsonschema.validate({"base": "other.yaml"}, schema)
    jsonschema.validate({"model": "m", "output_dir": "o"}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"model": "m"}, schema)


@pytest.mark.parametrize(
    ("written", "opened"), [("${HOME/{config}", "${HOME"), ("runs/{config", "{config"), ("a/{model/b", "{model")]
)
def test_a_brace_that_is_not_closed_is_named(files, written, opened):
    files(own=BASE.replace("results/{config}", f"'{written}'"))
    expected = f"own.yaml:3:1: {written}: '{opened}' has no closing brace. Write {opened}}}"
    with pytest.raises(InputError, match=re.escape(expected)):
        read_config("own.yaml")


def test_environment_variables_are_replaced_in_output_dir_alone(files, monkeypatch):
    files(own=BASE.replace("results", "${SCRATCH}/${USER_2}"))
    monkeypatch.setenv("SCRATCH", "/big")
    with pytest.raises(
        InputError, match=r"own\.yaml:3:1: the environment variable USER_2 is not set\. Set it, or write the folder itself"
    ):
        read_config("own.yaml")
    monkeypatch.setenv("USER_2", "")
    with pytest.raises(InputError, match=r"variable USER_2 is empty\. Set it, or write the folder itself"):
        read_config("own.yaml")
    monkeypatch.setenv("USER_2", "ann")
    assert read_config("own.yaml").output_dir == "/big/ann/own"
    files(own=BASE.replace("[p.json]", "['${SCRATCH}/p.json']"))
    with pytest.raises(InputError, match=r"'\${SCRATCH}' is not replaced by a value"):
        read_config("own.yaml")
