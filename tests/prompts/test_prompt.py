"""Prompt files: what is read, what is refused and how it is said."""

import json
import math

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusecli.prompts.json_schema import json_schema
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.prompt_files import inspect_prompt, prompt_files, read_prompt, read_prompts
from diffusecli.system.errors import InputError


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_the_originals_example_is_read_unchanged(tmp_path):
    text = json.dumps({"request": "r", "response": [""], "targets": ["{0}", "{1}"], "weights": [1, 3]})
    prompt = read_prompt(write(tmp_path / "p.json", text))
    assert prompt.probabilities == (0.25, 0.75)
    assert prompt.alias == str(tmp_path / "p.json")
    assert prompt.entropy == pytest.approx(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)))


def test_response_may_be_a_string_and_weights_may_be_empty(tmp_path):
    prompt = read_prompt(write(tmp_path / "p.json", '{"request": "r", "response": "Sure: ", "targets": ["a", "b"], "weights": []}'))
    assert prompt.response == ("Sure: ",)
    assert prompt.probabilities == (0.5, 0.5)


def test_a_test_only_prompt_has_no_targets(tmp_path):
    prompt = read_prompt(write(tmp_path / "p.json", '{"request": "r", "targets": []}'))
    assert (prompt.probabilities, prompt.entropy) == ((), 0)


def test_byte_order_marks_carriage_returns_and_schema_keys_are_fine(tmp_path):
    path = tmp_path / "p.json"
    path.write_bytes(b'\xef\xbb\xbf{"$schema": "x",\r\n "request": "r",\r\n "targets": ["a"]}')
    assert read_prompt(path).targets == ("a",)


def test_a_mistake_is_raised_with_its_place_and_its_remedy(tmp_path):
    path = write(tmp_path / "p.json", '{"request": "r",\n "targets": ["a"],\n "weigths": [1]}')
    with pytest.raises(InputError) as caught:
        read_prompt(path)
    assert str(caught.value) == f"{path}:3:2: unknown key 'weigths'. Did you mean 'weights'?"


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path):
    path = write(tmp_path / "p.json", '{"request": "", "targets": ["a", "a"], "colour": 1, "eos": 3}')
    assert len(inspect_prompt(path)[1]) == 3


def test_folders_are_searched_recursively_and_empty_ones_are_an_error(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    write(tmp_path / "a" / "b" / "p.json", '{"request": "r", "targets": ["x"]}')
    (tmp_path / "empty").mkdir()
    assert [p.alias for p in read_prompts([tmp_path / "a"])] == [str(tmp_path / "a" / "b" / "p.json")]
    with pytest.raises(InputError, match="contains no"):
        prompt_files([tmp_path / "empty"])
    with pytest.raises(InputError, match="does not exist"):
        prompt_files([tmp_path / "nowhere"])


def test_the_digest_is_of_the_content_not_of_the_path(tmp_path):
    text = '{"request": "r", "targets": ["x"]}'
    one, two = (read_prompt(write(tmp_path / name, text)) for name in ("1.json", "2.json"))
    other = read_prompt(write(tmp_path / "3.json", text.replace("x", "y")))
    assert one.digest == two.digest != other.digest


def test_the_digest_of_a_prompt_without_spellings_is_what_it_was_before_there_were_any():
    plain, one = Prompt(request="x", targets=("z",)), Prompt(request="x", targets=(["z"],))
    assert plain.digest == one.digest == "196588d64d7a2d90384b6430cda365cd47e4a7db8d259d8a83c698da93b1b80b"
    assert plain == one
    assert plain.to_json() == one.to_json()


def test_a_target_in_several_spellings_is_called_by_the_first_and_written_as_it_was_read(tmp_path):
    text = '{"request": "A number.", "targets": [["{seven}", "{7}", "7"], "{8}"], "weights": [3, 1]}'
    prompt = read_prompt(write(tmp_path / "p.json", text))
    assert prompt.targets == ("{seven}", "{8}")
    assert prompt.spellings == (("{seven}", "{7}", "7"), ("{8}",))
    assert prompt.probabilities == (0.75, 0.25)
    assert json.loads(prompt.to_json())["targets"] == json.loads(text)["targets"]
    again = read_prompt(write(tmp_path / "q.json", prompt.to_json()))
    assert (again.digest, again.spellings) == (prompt.digest, prompt.spellings)
    others = [prompt.model_copy(update={"targets": targets}) for targets in (("{seven}", "{8}"), (("{seven}", "7"), "{8}"))]
    assert len({prompt.digest, *(other.digest for other in others)}) == 3
    assert others[0].spellings == (("{seven}",), ("{8}",))


def test_the_longest_spelling_decides_how_many_tokens_a_server_is_asked_for():
    assert Prompt(request="x", targets=(("7", "seventeen"),)).most_tokens == len("seventeen") + 2


def test_the_schema_takes_spellings_and_refuses_targets_without_any():
    schema = json_schema("prompt")
    jsonschema.validate({"request": "x", "targets": [["a", "b"], "c"]}, schema)
    for targets in ([[]], [["a", 1]], [[["a"]]]):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"request": "x", "targets": targets}, schema)


@pytest.mark.parametrize(("targets", "doubts"), [([["{a}", "a"], ["{b}", "b"]], 0), ([["{a}", "{A}"], ["{b}"]], 1)])
def test_only_targets_in_braces_alone_need_a_request_that_asks_for_braces(tmp_path, targets, doubts):
    path = write(tmp_path / "p.json", json.dumps({"request": "A letter.", "targets": targets}))
    assert len([p for p in inspect_prompt(path)[1] if "curly braces" in p.message]) == doubts


@pytest.mark.parametrize("named", ["{1, …, 6}", "{1, ..., 6}", "{1..6}", "{-2..3}"])
@pytest.mark.parametrize(
    ("shown", "targets", "doubts"),
    [("", ["1", "2"], 0), ("", ["{1}", "{2}"], 1), (" like {n}", ["{1}", "{2}"], 0), (" like {n}", ["1", "2"], 1)],
)
def test_a_set_of_numbers_shows_no_form_of_an_answer(tmp_path, named, shown, targets, doubts):
    path = write(tmp_path / "p.json", json.dumps({"request": f"Draw from {named}{shown}.", "targets": targets}))
    assert len([p for p in inspect_prompt(path)[1] if "curly braces" in p.message]) == doubts


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20))
def test_probabilities_sum_to_one_and_keep_ratios(weights):
    prompt = Prompt(request="r", targets=tuple(map(str, range(len(weights)))), weights=tuple(weights))
    assert math.fsum(prompt.probabilities) == pytest.approx(1)
    assert prompt.probabilities[0] / prompt.probabilities[-1] == pytest.approx(weights[0] / weights[-1])


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    )
)
def test_no_json_value_is_a_traceback(tmp_path_factory, value):
    path = write(tmp_path_factory.mktemp("junk") / "p.json", json.dumps(value))
    prompt, problems = inspect_prompt(path)
    assert prompt is None
    assert problems
