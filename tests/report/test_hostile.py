"""Reports of hostile texts: Markdown, model cards, charts and the HTML report hold them as words and as nothing else."""

import json
import re
import xml.etree.ElementTree as Xml
from dataclasses import replace

import pytest

from diffusecli.files.markdown import markdown_cell, markdown_code
from diffusecli.models.card import merged_card, model_card
from diffusecli.prompts.prompt import Prompt
from diffusecli.report.html import html_report
from diffusecli.report.markdown import as_markdown
from diffusecli.report.pictures import write_plots
from diffusecli.verbs.evaluate import evaluate
from tests.report.test_html import Parsed, iteration, prompt, run_with

markdown_it = pytest.importorskip("markdown_it", reason="rich brings it")

HOSTILE = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[x](http://e.example)", "![x](http://e.example/y.png)", "<http://e.example>",
    "https://e.example/a", "www.e.example", "`code` ``<b>``", "a | b | c", "a\n\n# heading\n\n- item", "\\`<i>", "[^1]: note", "&lt;script&gt;",
    "\x1b[31m\u202e\x9b", "---\ntitle: x\n---", "```\n<b>x</b>\n```", "@everyone #12 javascript:alert(1)", "x\r\n| y | z |",
]  # fmt: skip
WHOLE = " ".join(HOSTILE)


def tokens(text):
    """All tokens that Markdown is made of, those within lines too; addresses are made links, as forges do."""
    parser = (
        markdown_it.MarkdownIt("gfm-like", {"html": True})
        if _links()
        else markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table")
    )
    for token in parser.parse(text):
        yield token
        yield from token.children or ()


def _links():
    try:
        import linkify_it  # noqa: F401
    except ImportError:
        return False
    return True


FORBIDDEN = {
    "html_inline",
    "html_block",
    "link_open",
    "image",
    "heading_open",
    "hr",
    "list_item_open",
    "fence",
    "code_block",
    "footnote_ref",
}


@pytest.mark.parametrize("text", [*HOSTILE, WHOLE])
def test_a_hostile_cell_is_one_cell_of_words(text):
    found = list(tokens(f"| a | b |\n|---|---|\n| {markdown_cell(text)} | 2 |\n"))
    assert [token.type for token in found].count("td_open") == 2
    assert FORBIDDEN & {token.type for token in found} == set()
    assert "code_inline" not in {token.type for token in found}
    cell = next(token for token in found if token.type == "inline" and token.content not in ("a", "b"))
    assert (
        "".join(t.content for t in cell.children).replace("\u200b", "").split()[:2] == re.sub(r"\s+", " ", _shown(text)).split()[:2]
    )


def _shown(text):
    from diffusecli.system.errors import printable

    return printable(text)


@pytest.mark.parametrize("text", [*HOSTILE, WHOLE, "", " ", "`", "a`"])
def test_a_hostile_text_as_code_is_nothing_but_code(text):
    kinds = [token.type for token in tokens(f"before {markdown_code(text)} after")]
    assert FORBIDDEN & set(kinds) == set()
    assert kinds.count("code_inline") == 1


def test_nobody_is_called_and_no_address_is_a_link():
    shown = markdown_cell("@team #7 https://a.b www.a.b HTTP://A ftp://x mailto:y")
    assert shown.count("&#8203;") == 2
    shown = shown.replace("&#8203;", " ")
    assert not re.search(r"[@#]\w|\b(https?|ftp|mailto):|\bwww\.", shown, re.IGNORECASE)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """An evaluation of two runs in which every name and text is hostile."""
    folder = tmp_path_factory.mktemp("r")
    targets = [*HOSTILE, "other"]
    aliases = [f"g<b>[x](y)/{HOSTILE[1]}|`{i}.json" for i in (1, 2)]
    prompts = {alias: prompt(targets, request=WHOLE) for alias in aliases}
    samples = {
        mode: {alias: {**dict.fromkeys(targets, 20), f"stray {WHOLE}": 7} for alias in aliases} for mode in ("untuned", "lora")
    }
    manifest = {
        "exact_kl": dict.fromkeys(aliases, 0.1),
        "retention_kl": 0.01,
        "exact_on_target": dict.fromkeys(aliases, 0.9),
        "model": WHOLE,
    }
    for name in ("a<script>[x](y)`|", "b![x](y)www.e.example"):
        run = run_with(
            folder / name, prompts, samples, manifest, "".join(iteration(i, dict.fromkeys(aliases, 1 / i)) for i in (1, 2))
        )
        run.config.write_text(json.dumps({"model": WHOLE}))
    return evaluate([folder])


def test_the_markdown_of_hostile_runs_holds_tables_and_words(found):
    text = as_markdown(replace(found, drift={WHOLE: 0.1}))
    kinds = {token.type for token in tokens(text)}
    assert FORBIDDEN & kinds == set()
    assert {"table_open", "td_open"} <= kinds
    assert {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")} >= {12}


def test_model_cards_of_hostile_runs_have_their_own_headings_and_code_and_no_others():
    known = Prompt(request=WHOLE, targets=("a", "b"), alias=HOSTILE[1])
    manifest = {"model": WHOLE, "exact_kl": {known.alias: 0.1}, "exact_kl_before": {known.alias: 0.2}, "exact_on_target": {known.alias: 0.9},
                "exact_on_target_before": {known.alias: 0.1}, "exact_kl_test": {}, "exact_on_target_test": {}, "retention_kl": None, "steps": 1,
                "training_seconds": 1.0, "stopped": WHOLE, "chat": {"system": WHOLE}}  # fmt: skip
    for card in (model_card(manifest, [known]), merged_card(manifest, [known], dtype="float32", gap=0.0, remarks=[WHOLE])):
        head, _, body = card.removeprefix("---\n").partition("\n---\n")
        assert len(head.splitlines()) in (4, 5)
        found = list(tokens(body))
        kinds = [token.type for token in found]
        assert {"html_inline", "html_block", "link_open", "image"} & set(kinds) == set()
        assert (kinds.count("heading_open"), kinds.count("fence"), kinds.count("table_open")) == (1, 1, 1)
        compile(next(token.content for token in found if token.type == "fence"), "card", "exec")


def test_charts_of_hostile_texts_are_drawings_with_words(found, tmp_path):
    one = found.differences[0]
    found = replace(found, rows=(one.before, one.after), differences=(one,))
    paths = write_plots(found, tmp_path / "plots")
    assert len(paths) > 4
    for path in paths:
        assert re.fullmatch(r"[A-Za-z0-9._-]+\.(svg|png)", path.name)
        if path.suffix == ".svg":
            elements = list(Xml.parse(path).iter())  # noqa: S314 - made here
            kinds = {element.tag.rpartition("}")[2] for element in elements}
            assert kinds <= {"svg", "g", "path", "text", "line", "rect", "defs", "use", "title", "desc", "tspan", "style"}
            assert all(re.fullmatch(r"#m-[a-z-]+", element.get("href", "#m-none")) for element in elements)
            assert not [name for element in elements for name in element.attrib if name.startswith("on")]
            (style,) = (element.text for element in elements if element.tag.endswith("style"))
            assert not re.search(r"@|url|var\(", style)


def test_the_page_of_hostile_runs_has_its_own_elements_and_no_others(found):
    source = html_report(found)
    parsed = Parsed(source)
    kinds = {tag for tag, _ in parsed.tags}
    assert {"svg", "rect", "use", "line", "path", "g", "table", "details"} <= kinds
    assert not {"img", "i", "iframe", "object", "embed", "image", "foreignobject", "base"} & kinds
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]
    links = {
        value for tag, attributes in parsed.tags if tag == "use" for name, value in attributes.items() if name.endswith("href")
    }
    assert links
    assert all(re.fullmatch(r"#m-[a-z-]+", link) for link in links)
    assert len([attributes for tag, attributes in parsed.tags if tag == "script"]) == 1


def test_numbers_of_charts_are_numbers(found):
    """No text of a prompt is a position, a colour or a path."""
    parsed = Parsed(html_report(found))
    shapes = [attributes for tag, attributes in parsed.tags if tag in ("rect", "line", "use", "path")]
    assert len(shapes) > 100
    for attributes in shapes:
        for name in ("x", "y", "x1", "x2", "y1", "y2", "width", "height", "dx", "dy"):
            assert re.fullmatch(r"-?[\d.]+%?|\.35em", attributes.get(name) or "0")
        assert re.fullmatch(r"[MLHVAaZzhvl\d.\s,-]*", attributes.get("d") or "")
        assert re.fullmatch(r"(var\(--[a-z]+\))?", attributes.get("fill") or "")
