"""Answers in a server's tokens, with chat templates worked out by hand. A token is a character."""

import asyncio

import pytest

from diffusecli.sampling.answer_paths import Asked, paths_of
from diffusecli.system.errors import InputError


class Template:
    """A server whose template writes a prompt as `?` and `prompt`, and an answer after `before` and followed by `after`.

    `changes`: what the template does to an answer. A text loses a space at its start when tokens become text.
    """

    def __init__(self, prompt, before, after, changes=str):
        self.opening, self.before, self.after, self.changes = prompt, before, after, changes

    async def prompt(self, messages):
        return tuple(f"?{self.opening}")

    async def answered(self, messages, answer):
        return tuple(f"?{self.before}{self.changes(answer)}{self.after}")

    async def text(self, text):
        return tuple(text)

    async def spelled(self, path):
        return "".join(path).removeprefix(" ")


def paths(template, *answers, ended=True):
    found = asyncio.run(paths_of(Asked("p.json", (), answers, ended), template))
    return "".join(found.prompt), ["".join(path) for path in found.answers]


def test_an_answer_is_what_stands_between_prompt_and_end_with_the_token_that_ends_it():
    assert paths(Template(">", ">", "#\n"), "ab", "", "a#b") == ("?>", ["ab#", "#", "a#b#"])


def test_an_answer_without_its_end():
    assert paths(Template(">", ">", "#\n"), "ab", ended=False) == ("?>", ["ab"])


def test_an_answer_alone_where_the_template_writes_something_else_before_answers():
    """As templates of models that think: the prompt opens a thought, and conversations have none."""
    assert paths(Template(">(", ">", "#"), "ab") == ("?>(", ["ab#"])


def test_a_template_that_does_not_end_turns_is_refused():
    with pytest.raises(InputError, match=r"p\.json: the server's chat template does not end turns"):
        paths(Template(">", ">", ""), "ab")
    assert paths(Template(">", ">", ""), "ab", ended=False) == ("?>", ["ab"])


def test_a_target_without_tokens_is_refused_if_it_need_not_end():
    with pytest.raises(InputError, match="the target '' has no tokens"):
        paths(Template(">", ">", "#"), "", ended=False)


def test_white_space_before_the_token_that_ends_an_answer_belongs_to_it():
    """As templates of Llama 2: `{answer} </s>`."""
    assert paths(Template(">", "> ", " #\n"), "ab", "c") == ("?>", [" ab #", " c #"])


@pytest.mark.parametrize("answers", [("7", " 7"), (" 7", "7"), (" 7",), ("7", "7\n")])
def test_a_template_that_removes_space_around_answers_is_refused_for_targets_that_have_it(answers):
    with pytest.raises(InputError, match=r"p\.json: .*'( 7|7\\n)'"):
        paths(Template(">", ">", "#", str.strip), *answers)
    assert paths(Template(">", ">", "#", str.strip), "7", "8 9") == ("?>", ["7#", "8 9#"])


def test_a_template_that_changes_an_answer_is_refused():
    """As templates of models that think, which remove thoughts from answers."""
    with pytest.raises(InputError, match=r"p\.json: the server's chat template or tokenizer changes the target '\(so\)b'"):
        paths(Template(">", ">", "#", lambda text: text.replace("(so)", "")), "a", "(so)b")


def test_two_targets_with_the_same_tokens_are_refused():
    with pytest.raises(InputError, match=r"the targets 'a b' and 'a  b' have the same tokens"):
        paths(Template(">", ">", "#", lambda text: " ".join(text.split())), "a b", "a  b")
