"""The script that draws charts is made once, and never taken from a cache that was changed."""

import pytest
import vl_convert

from diffusecli.report.bundle import vega_bundle


@pytest.fixture
def made(monkeypatch, tmp_path):
    """How often the script was made; the maker's is `ends </script` with three kinds of line ends."""
    calls = []
    monkeypatch.setenv("DIFFUSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda **asked: calls.append(asked) or "a\r\nb\rc\nends </script")
    return calls


def in_a_new_process():
    vega_bundle.cache_clear()
    try:
        return vega_bundle()
    finally:
        vega_bundle.cache_clear()


def test_the_script_is_made_once_and_closes_no_element(made):
    assert [in_a_new_process(), in_a_new_process()] == ["a\nb\nc\nends <\\/script"] * 2
    assert len(made) == 1


def test_another_version_has_a_script_of_its_own(made, monkeypatch):
    in_a_new_process()
    monkeypatch.setattr(vl_convert, "__version__", "0.0.1")
    in_a_new_process()
    assert len(made) == 2


@pytest.mark.parametrize("content", [b"", b"alert(1)", b"0\nalert(1)", b"\xff"])
def test_a_script_that_was_changed_is_made_again(made, tmp_path, content):
    in_a_new_process()
    (kept,) = (tmp_path / "cache").rglob("*.js")
    whole = kept.read_bytes()
    kept.write_bytes(content)
    assert in_a_new_process() == "a\nb\nc\nends <\\/script"
    assert kept.read_bytes() == whole


def test_without_a_cache_it_is_made_each_time(made, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder would be")
    assert [in_a_new_process(), in_a_new_process()] == ["a\nb\nc\nends <\\/script"] * 2
    assert len(made) == 2
