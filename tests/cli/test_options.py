"""Values of options that more than one command has."""

from pathlib import Path

import pytest

from diffusecli.cli.limits import Limits
from diffusecli.cli.options import CHOICES, TableOptions, meant_paths, require_choices
from diffusecli.evaluation.gates import GATES, GROUP_GATES
from diffusecli.files.tables import Layout
from diffusecli.system.errors import InputError


@pytest.mark.parametrize("option", CHOICES)
def test_a_word_that_an_option_does_not_take_is_refused_with_those_it_takes(option):
    for word in (None, *CHOICES[option]):
        require_choices({option: word})
    with pytest.raises(InputError, match=f"^{option} x: must be one of {', '.join(CHOICES[option])}$"):
        require_choices({option: "x"})


def test_paths_and_models_may_be_below_the_home_folder_and_other_texts_hold_any_sign(monkeypatch):
    monkeypatch.setenv("HOME", "/h")
    assert meant_paths("prompt", [Path("~/a"), Path("b")]) == [Path("/h/a"), Path("b")]
    assert [meant_paths(option, "~/m") for option in ("model", "chat_template", "request")] == ["/h/m", "/h/m", "~/m"]
    assert meant_paths("top", 3) == 3


def test_table_options_are_a_layout_and_contradictions_are_refused():
    assert TableOptions().layout() == Layout()
    assert TableOptions(";", "cp1252", header_rows=2, skip_rows=1, sheet="s").layout() == Layout(";", "cp1252", 2, 1, "s")
    assert TableOptions(no_header=True).layout() == Layout(header_rows=0)
    with pytest.raises(InputError, match="--no-header and --header-rows 2 exclude each other"):
        TableOptions(no_header=True, header_rows=2).layout()


def test_every_limit_has_an_option_and_only_those_given_count():
    options = [f"--{name.replace('_', '-')}" for name in vars(Limits())]
    assert set(options) == {*GATES, *GROUP_GATES, "--max-drift"}
    assert Limits().given() == {}
    assert Limits(max_tvd=0.0, min_n=5).given() == {"--min-n": 5, "--max-tvd": 0.0}
