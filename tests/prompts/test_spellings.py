"""Ready spellings: what is written for which outcome, and that no two outcomes ever share one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusecli.files.text import canonical
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.prompt_checks import checked
from diffusecli.prompts.spellings import spelled

OUTCOMES = st.one_of(
    st.integers(-9, 120).map(str),
    st.sampled_from(["May", "Mar", "march", "Sun", "Sunday", "yes", "NO", "one", "{1}", "{one}", "07", "0.5"]),
)


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        (["7"], [["{7}", "7", "{seven}", "seven", "{Seven}", "Seven"]]),
        (["42"], [["{42}", "42", "{forty-two}", "forty-two", "{Forty-two}", "Forty-two"]]),
        (["100"], [["{100}", "100"]]),
        (["-3"], [["{-3}", "-3"]]),
        (["Seven"], [["{Seven}", "Seven", "{7}", "7", "{seven}", "seven"]]),
        (["Mar"], [["{Mar}", "Mar", "{March}", "March", "{march}", "march", "{mar}", "mar"]]),
        (["no"], [["{no}", "no", "{No}", "No"]]),
        (["heads"], [["{heads}", "heads"]]),
        (["7", "seven"], [["{7}", "7"], ["{seven}", "seven"]]),  # who writes both means two things
        (["Sun", "Sunday"], [["{Sun}", "Sun"], ["{Sunday}", "Sunday"]]),
        (["{a}", "a"], [["{{a}}"], ["{a}", "a"]]),  # a target's name is its own
    ],
)
def test_outcomes_are_written_in_these_ways(outcomes, expected):
    assert spelled(outcomes, "{%s}") == tuple(map(tuple, expected))


@given(st.lists(OUTCOMES, min_size=1, max_size=12, unique=True), st.sampled_from(["{%s}", "%s", "<%s>", "one %s"]))
def test_every_outcome_keeps_its_name_and_no_spelling_is_there_twice(outcomes, wrap):
    found = spelled(outcomes, wrap)
    assert [spellings[0] for spellings in found] == [wrap.replace("%s", outcome) for outcome in outcomes]
    texts = [canonical(text) for spellings in found for text in spellings]
    assert len(set(texts)) == len(texts)
    assert checked(Prompt(request="x", targets=found)).spellings == found
