"""Folders of prompts become short group names."""

from hypothesis import given
from hypothesis import strategies as st

from diffusecli.prompts.groups import group_of, shared_folders, split_of

paths = st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=5).map("/".join), min_size=1, max_size=8)


def test_splits_and_families_are_named_without_what_all_prompts_share():
    aliases = ["/my/mix/held-out/wordings/dice/1.json", "/my/mix/held-out/families/urns/1.json", "/my/mix/train/dice/1.json"]
    assert list(group_of(aliases).values()) == ["held-out/wordings/dice", "held-out/families/urns", "train/dice"]
    assert list(group_of(aliases[:2]).values()) == ["wordings/dice", "families/urns"]


def test_prompts_beside_folders_are_in_the_group_of_all():
    assert group_of(["p/a.json", "p/dice/1.json"]) == {"p/a.json": ".", "p/dice/1.json": "dice"}
    assert group_of(["a.json"]) == {"a.json": "."}
    assert group_of([]) == {}


@given(paths)
def test_the_shared_part_and_the_group_make_up_the_folder(aliases):
    shared = shared_folders(aliases)
    for alias, group in group_of(aliases).items():
        names = [] if group == "." else group.split("/")
        assert alias.split("/")[:shared] + names == alias.split("/")[:-1]
    assert len({tuple(alias.split("/")[:-1][:shared]) for alias in aliases}) == 1
    assert any(len(alias.split("/")) == shared + 1 for alias in aliases) or (
        len({alias.split("/")[shared] for alias in aliases}) > 1
    )


def test_a_split_is_one_level_above_its_families():
    assert (split_of("held-out/wordings/dice"), split_of("dice")) == ("held-out/wordings", None)
