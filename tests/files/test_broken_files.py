"""A corpus of broken and doubtful files, each with the exact messages it must get."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusecli.prompts.config_files import inspect_config
from diffusecli.verbs.validate import validate

CORPUS = yaml.safe_load(Path(__file__).with_name("broken_files.yaml").read_text(encoding="utf-8"))
ALIAS_BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a good prompt in `p/` and nothing in `empty/`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "p" / "good.json").write_text('{"request": "r", "targets": ["x"]}')
    return tmp_path


def problems(folder, file, text, **options):
    (folder / file).write_text(text, encoding="utf-8", newline="")
    return [f"{problem.severity}: {problem}" for problem in validate([Path(file)], **options).problems]


@pytest.mark.parametrize("case", CORPUS, ids=[case["name"] for case in CORPUS])
def test_every_problem_is_told_with_place_and_remedy(folder, case):
    assert problems(folder, case["file"], case["text"]) == case["problems"]


def test_the_corpus_is_as_large_as_it_should_be():
    assert len(CORPUS) >= 60
    assert all(case["problems"] for case in CORPUS)


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("p.json", "[" * 3000 + "]" * 3000, "error: p.json: is nested too deeply. Flatten it"),
        (
            "p.json",
            '{"targets": [1' + "0" * 5000 + "]}",
            "error: p.json: contains a number with thousands of digits. Write a smaller number",
        ),
        ("c.yaml", ALIAS_BOMB, "error: c.yaml: invalid YAML: its aliases make it too large. Correct the YAML there"),
    ],
)
def test_files_made_to_hurt_are_refused(folder, file, text, expected):
    assert problems(folder, file, text) == [expected]


def test_a_sign_or_a_point_makes_another_number(folder):
    text = '{"request": "Like this: {x}", "targets": ["{-3}", "{3}", "{-2}", "{2}", "{-1}", "{1}", "{1.5}", "{15}"]}'
    assert problems(folder, "p.json", text) == []


def test_strict_turns_warnings_into_errors_and_leaves_notices(folder):
    doubtful = '{"request": "Say a letter.", "targets": ["{a}", "{b}"], "weights": [0.5, 0.4]}'
    assert [line.split(":")[0] for line in problems(folder, "p.json", doubtful)] == ["warning", "notice"]
    assert [line.split(":")[0] for line in problems(folder, "p.json", doubtful, strict=True)] == ["error", "notice"]


def test_a_prompt_named_twice_and_a_folder_that_holds_no_adapter(folder):
    text = (
        "model: owner/m\ntrain_prompts: [p, p/good.json]\ntest_prompts: []\noutput_dir: out\nload_model: true\nckpt_dir: empty\n"
    )  # fmt: skip
    assert problems(folder, "c.yaml", text) == [
        "warning: c.yaml:2:20: p/good.json is listed twice. List it once",
        "error: c.yaml:6:1: empty contains no adapter. Use the folder of a trained run",
    ]


def test_paths_are_checked_even_when_other_fields_are_wrong(folder):
    text = "model: m\ntrain_prompts: [nowhere.json, p]\nalg_config:\n  n_iters: many\n"
    found = problems(folder, "c.yaml", text)
    assert any("nowhere.json does not exist" in line for line in found)
    assert any("n_iters' must be a whole number" in line for line in found)
    assert any("'output_dir' is missing" in line for line in found)


def test_prompts_to_hold_on_to_are_checked_like_the_others(folder):
    text = "model: owner/m\ntrain_prompts: [p]\noutput_dir: out\nretain:\n  prompts: [p, nowhere]\n"
    assert problems(folder, "c.yaml", text) == [
        "error: c.yaml:5:16: nowhere does not exist. Check the path (relative to the working directory)"
    ]


@pytest.mark.parametrize(
    ("retain", "message"), [("weight: -1", "weight' must be greater than 0"), ("weigth: 2", "unknown key 'weigth'")]
)
def test_a_mistake_in_a_mapping_that_may_also_be_off_is_told_once(folder, retain, message):
    (found,) = problems(folder, "c.yaml", f"model: owner/m\ntrain_prompts: [p]\noutput_dir: out\nretain:\n  {retain}\n")
    assert message in found


@pytest.mark.parametrize("name", ["a" * 300, "a\\0b"])
def test_paths_that_no_file_can_have_are_simply_not_there(folder, name):
    text = f'model: owner/m\ntrain_prompts: ["{name}"]\noutput_dir: "{name}"\nload_model: true\nckpt_dir: "{name}"\n'
    found = problems(folder, "c.yaml", text)
    assert any("does not exist" in line for line in found)


@settings(deadline=None, max_examples=40)
@given(
    st.dictionaries(st.sampled_from(["model", "output_dir", "ckpt_dir"]), st.text(min_size=1), min_size=3),
    st.lists(st.text(), max_size=3),
)
def test_no_text_in_a_config_of_the_right_shape_is_a_traceback(tmp_path_factory, fields, paths):
    path = tmp_path_factory.mktemp("junk") / "c.yaml"
    path.write_text(yaml.safe_dump({**fields, "train_prompts": paths, "load_model": True}, allow_unicode=True), encoding="utf-8")
    assert validate([path]).problems


def test_an_output_folder_with_a_finished_run_is_noticed(folder):
    (folder / "out").mkdir()
    (folder / "out" / "run.json").write_text("{}")
    text = "model: owner/m\ntrain_prompts: [p]\noutput_dir: out\n"
    assert "already contains a finished run" in problems(folder, "c.yaml", text)[0]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["model", "train_prompts", "alg_config", "gamma", "output_dir", "lora", "x"]) | st.text(),
            inner,
            max_size=5,
        )
    ),
)


@given(JSON_VALUES)
def test_no_yaml_value_is_a_traceback(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("junk") / "c.yaml"
    path.write_text(yaml.safe_dump(value, allow_unicode=True), encoding="utf-8")
    inspected = inspect_config(path)
    assert inspected.config is None
    assert inspected.problems


@given(st.text())
def test_no_text_is_a_traceback(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("junk")
    for name in ("p.json", "c.yaml"):
        (folder / name).write_text(text, encoding="utf-8", errors="surrogatepass")
    assert validate([folder]).failed
