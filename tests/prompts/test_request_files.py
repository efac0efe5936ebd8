"""Requests from files: what counts as one, and what is refused where."""

import pytest

from diffusecli.prompts.request_files import read_requests
from diffusecli.system.errors import InputError


def test_lines_are_requests_but_blank_ones_and_comments(tmp_path):
    path = tmp_path / "r.txt"
    path.write_text("# dice\nRoll a die.\n\n  Throw a die. \n", encoding="utf-8")
    assert read_requests([path]) == ("Roll a die.", "Throw a die.")


def test_a_json_list_keeps_line_ends_within_a_request(tmp_path):
    path = tmp_path / "r.json"
    path.write_text('["Roll a die.\\nNow.", "# Throw"]')
    assert read_requests([path]) == ("Roll a die.\nNow.", "# Throw")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("r.txt", "# none\n\n", "r.txt: contains no request. Write one per line"),
        ("r.json", "[]", "r.json: contains no request"),
        ("r.txt", "Roll.\n#\nRoll. \n", "r.txt:3: the request 'Roll.' is also at {path}:1. Remove one of the two"),
        ("r.json", '["Roll.",\n "Roll."]', "r.json:2:2: the request 'Roll.' is also at {path}:1:2"),
        ("r.json", '{"request": "Roll."}', 'r.json: is not a list of requests. Write ["Roll a die.", "Throw a die."]'),
        ("r.json", '["Roll.",\n 5]', "r.json:2:2: the request 5 is not a text. Write what to ask, in quotes"),
        ("r.json", "[", "r.json:1"),
    ],
)
def test_files_without_requests_or_with_one_twice_are_refused_with_their_place(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_requests([path])
    assert message.replace("{path}", str(path)) in str(caught.value)


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.txt: does not exist"):
        read_requests([tmp_path / "none.txt"])
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"b\.txt: byte 0 is not UTF-8. Save the file as UTF-8"):
        read_requests([tmp_path / "b.txt"])


def test_several_files_are_read_one_after_the_other_and_share_no_request(tmp_path):
    first, second = tmp_path / "a.txt", tmp_path / "b.json"
    first.write_text("Roll.\n")
    second.write_text('["Throw."]')
    assert read_requests([first, second]) == ("Roll.", "Throw.")
    second.write_text('["Roll."]')
    with pytest.raises(InputError, match=r"b\.json:1:2: the request 'Roll\.' is also at .*a\.txt:1"):
        read_requests([first, second])
