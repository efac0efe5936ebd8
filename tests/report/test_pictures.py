"""Pictures of `--plots`: the charts of the HTML report, drawn to scale, with nothing cut and nothing on top of something else."""

import io
import re
import xml.etree.ElementTree as Xml
from itertools import pairwise

import pytest

from diffusecli.evaluation.evaluation import Matrix
from diffusecli.files.writing import write_json
from diffusecli.report.content import content
from diffusecli.report.matrix_chart import of_matrix
from diffusecli.report.palette import LIGHT
from diffusecli.report.pictures import write_plots
from diffusecli.report.svg import of_cells, of_lines, of_rows
from diffusecli.report.text_widths import BOLD, width
from diffusecli.system.errors import InputError
from diffusecli.verbs.evaluate import evaluate
from tests.commands import HANG
from tests.report.test_html import HOSTILE, browser, iteration, prompt, run_with, two_prompts  # noqa: F401 - a fixture

SPACE = "{http://www.w3.org/2000/svg}"
LONG = [
    "very satisfied with nearly everything that was offered", "very satisfied with nearly everything that was ordered", "WWWWWWWWWWWWWWWWWWWWWWWW",
    "日本語の長い答えは幅が二倍になるので切られる", "🙂🙃🙂🙃🙂🙃🙂🙃🙂🙃🙂🙃", "שלום לכולם", "﷽﷽﷽", "e\u0301e\u0301e\u0301", "a & b < c > \"d\" 'e'", "<script>alert(1)</script>",
]  # fmt: skip


def parsed(svg):
    return Xml.fromstring(svg)  # noqa: S314 - made here


def texts(svg):
    return ["".join(element.itertext()) for element in parsed(svg).iter(f"{SPACE}text")]


def classed(svg, kind, name):
    """Elements of a class with the shifts of the groups around them."""

    def walk(element, x, y):
        if moved := re.fullmatch(r"translate\((\S+) (\S+)\)", element.get("transform", "")):
            x, y = x + float(moved[1]), y + float(moved[2])
        if element.tag == SPACE + kind and name in element.get("class", "").split():
            yield element, x, y
        for child in element:
            yield from walk(child, x, y)

    return list(walk(parsed(svg), 0.0, 0.0))


def ticks(svg):
    """The places of the axis' values, of shares."""
    found = [e for e in parsed(svg).iter(f"{SPACE}text") if e.get("class") == "quiet small" and e.get("text-anchor") == "middle"]
    return {e.text: float(e.get("x")) for e in found if e.text.endswith("%")}


@pytest.fixture
def dice(tmp_path):
    """Three targets with weights 5, 3 and 2; shares among the 80 valid answers are .5, .4 and .1."""
    samples = {"untuned": {"p.json": {"a": 10, "b": 30}}, "lora": {"p.json": {"a": 40, "b": 32, "c": 8, "junk": 20}}}
    run_with(tmp_path / "run", {"p.json": prompt("abc", [5, 3, 2])}, samples)
    return content(evaluate([tmp_path])).sections[0][1].rows[0]


def test_bars_and_points_are_where_the_axis_says(dice):
    svg = of_rows(dice, "p", "")
    at = ticks(svg)
    zero, unit = at["0\u202f%"], at["20\u202f%"] - at["0\u202f%"]

    def share(x):
        return 0.2 * (x - zero) / unit

    bars = [(float(e.get("x")) + x, float(e.get("width"))) for e, x, _ in classed(svg, "rect", "weight") if x]
    assert [share(start) for start, _ in bars] == pytest.approx([0, 0, 0], abs=0.001)
    assert [share(start + wide) for start, wide in bars] == pytest.approx([0.5, 0.3, 0.2], abs=0.002)
    points = [
        float(next(e.iter(f"{SPACE}use")).get("x")) + x for kind in ("filled", "hollow") for e, x, _ in classed(svg, "g", kind)
    ]
    assert sorted(share(x) for x in points) == pytest.approx([0.1, 0.4, 0.5], abs=0.002)
    tops = [y for e, x, y in classed(svg, "rect", "weight") if x]
    assert tops == sorted(tops)


def test_a_picture_has_the_texts_of_its_chart(dice):
    svg = of_rows(dice, "p · Say one.", "valid: a rule")
    found = texts(svg)
    for row in dice.rows:
        assert {row.label, *row.figures} <= {*found, ""}
    assert {dice.title, "p · Say one.", "valid: a rule", "untuned", "tuned", "target weight", "*"} <= set(found)
    assert " ".join(dice.reading.split()) in " ".join(found)
    assert [parsed(svg).find(SPACE + name).text for name in ("title", "desc")] == [dice.title, f"{dice.description} valid: a rule"]
    assert parsed(svg).get("role") == "img"


def test_lines_end_where_their_values_are(tmp_path):
    two_prompts(tmp_path / "run")
    kl, loss = content(evaluate([tmp_path])).training[0][1]
    assert {(curve.name, curve.value) for curve in kl.curves} == {("n", "0.0100"), ("w", "0.0200")}, "as in the run's manifest"
    assert "after the last step" in kl.reading
    for chart in (kl, loss):
        svg = of_lines(chart, "run", "")
        (group,) = {element for element, x, _ in ((g, 0, 0) for g in parsed(svg).findall(f"{SPACE}g"))}
        paths = [path.get("d") for path in group.iter(f"{SPACE}path")]
        assert len(paths) == len(chart.curves)
        ends = [tuple(map(float, re.search(r"L([\d.]+) ([\d.]+)$", path).groups())) for path in paths]
        marks = [(float(use.get("x")), float(use.get("y"))) for use in group.iter(f"{SPACE}use")]
        assert all(min(abs(x - a) + abs(y - b) for a, b in ends) < 0.2 for x, y in marks)
        assert {f"{curve.name} {curve.value}" for curve in chart.curves} <= set(texts(svg))


def test_the_names_of_many_lines_have_room(tmp_path):
    for number, name in enumerate("abcdefghij"):
        run_with(
            tmp_path / name,
            {"n.json": prompt(["{1}", "{2}"])},
            {mode: {"n.json": {"{1}": 5 + number, "{2}": 4}} for mode in ("untuned", "lora")},
        )
    chart = content(evaluate([tmp_path])).sections[0][1].lines[0]
    assert len(chart.curves) == 21
    tops = sorted(curve.top for curve in chart.curves)
    assert all(b - a >= 16.9 for a, b in pairwise(tops))
    assert 0 <= tops[0] <= tops[-1] <= chart.height


def test_cells_of_a_matrix_are_darker_where_their_value_is_larger():
    found = Matrix("exact KL", ("one", "two"), ("dice", "coins"), ((0.1, 2.0), (float("nan"), 1.0)), ((True, False), (False, True)))
    svg = of_cells(of_matrix(found), "")
    shades = [float(e.get("fill-opacity")) for e in parsed(svg).iter(f"{SPACE}rect") if e.get("fill") == LIGHT["vermilion"]]
    assert shades == [0.03, 0.6, 0.0, 0.3]
    assert {"one", "two", "dice", "coins", "0.100", "2.000", "–", "1.000"} <= set(texts(svg))
    assert texts(svg).count("trained on") == 2


@pytest.fixture(scope="module")
def hard(tmp_path_factory):
    """SVGs of all kinds, of texts that are long, wide or hostile, from several runs."""
    folder = tmp_path_factory.mktemp("hard")
    targets = list(dict.fromkeys([*LONG, *HOSTILE]))
    prompts = {
        "some/a-long-name-of-a-prompt-that-is-long.json": prompt(targets, list(range(1, len(targets) + 1)), request="How? " * 40),
        "n.json": prompt([f"{{{n}}}" for n in range(1, 30)]),
        "o.json": prompt([]),
    }
    counted = {alias: dict.fromkeys(p["targets"] or LONG, 7) | {f"x{n}": n for n in range(9)} for alias, p in prompts.items()}
    for name in ("a-long-name-of-a-run-with-many-words", "another-long-name-of-a-run-with-many-words", "third"):
        metrics = "".join(iteration(n, dict.fromkeys(prompts, 1e-5 / n)) for n in range(1, 9))
        run_with(folder / name, prompts, {"untuned": counted, "lora": counted}, {"exact_kl": dict.fromkeys(prompts, 0.5)}, metrics)
    paths = write_plots(evaluate([folder]), folder / "plots")
    every = {path.stem: path.read_text(encoding="utf-8") for path in paths if path.suffix == ".svg"}
    matrix = Matrix("exact KL", tuple(LONG), tuple(LONG), ((12.3456,) * 10,) * 10, ((True, False) * 5,) * 10)
    return every | {"matrix": of_cells(of_matrix(matrix), "")}


def test_hostile_texts_are_words_of_a_well_formed_picture(hard, tmp_path):
    assert {name.partition(".")[2] for name in hard} >= {
        "distribution",
        "cumulative",
        "outcomes",
        "training.exact-kl",
        "training.loss",
    }
    assert not any(sign in svg for svg in hard.values() for sign in "\x1b\x00\u2028\u202e\ufffe")
    shown = [*HOSTILE[:-1], "a & b", "\ufffe\x0b"]
    run_with(
        tmp_path / "run",
        {"p.json": prompt(shown, request="</text><script>x</script>")},
        {"lora": {"p.json": dict.fromkeys(shown, 7)}},
    )
    chart = content(evaluate([tmp_path])).sections[0][1].rows[0]
    labels = {"\\x1b[2J\\x00\\u2028", "\\u202eabc", "a ⏎ b", "\\ufffe\\x0b", "a & b", "שלום", "🙂", "{{ 7 * 7 }}", *HOSTILE[:3]}
    assert labels <= set(texts(of_rows(chart, "</text><script>x</script>", "")))


def test_a_png_is_the_picture_at_twice_its_size(tmp_path):
    image = pytest.importorskip("PIL.Image")
    run_with(tmp_path / "run", {"p.json": prompt("ab")}, {"lora": {"p.json": {"a": 60, "b": 40}}})
    paths = write_plots(evaluate([tmp_path]), tmp_path / "plots")
    assert {path.suffix for path in paths} == {".svg", ".png"}
    for path in (path for path in paths if path.suffix == ".png"):
        box = [float(number) for number in parsed(path.with_suffix(".svg").read_text()).get("viewBox").split()]
        with image.open(path) as picture:
            assert picture.size == (2 * box[2], 2 * box[3])
            seen = {f"#{r:02x}{g:02x}{b:02x}" for _, (r, g, b) in picture.convert("RGB").getcolors(1 << 24)}
        assert {"#ffffff", LIGHT["target"], LIGHT["blue"], LIGHT["ink"]} <= seen


def test_nothing_reaches_over_the_edges_of_a_picture(hard):
    """Drawn on a larger sheet without its background, a picture leaves the margin around it empty."""
    image = pytest.importorskip("PIL.Image")
    vl_convert = pytest.importorskip("vl_convert")

    def outside(svg):
        wide, high = (int(number) for number in re.search(r'viewBox="0 0 (\d+) (\d+)"', svg).groups())
        larger = re.sub(r'width="\d+" height="\d+" viewBox="[^"]+"',
                        f'width="{wide + 400}" height="{high + 400}" viewBox="-200 -200 {wide + 400} {high + 400}"', svg, count=1)  # fmt: skip
        bare = re.sub(r'<rect width="100%" height="100%"[^>]*>', "", larger)
        with image.open(io.BytesIO(vl_convert.svg_to_png(bare))) as picture:
            left, top, right, bottom = picture.getchannel("A").getbbox()
        return left < 200 or top < 200 or right > 200 + wide or bottom > 200 + high

    assert [name for name, svg in hard.items() if outside(svg)] == []
    assert outside(next(iter(hard.values())).replace('class="title"', 'class="title" font-size="1" transform="translate(700)"')), (
        "it can fail"
    )


BOXES = """() => [...document.querySelectorAll("text")].map(e => {
    const box = e.getBoundingClientRect();
    return [e.textContent, box.left, box.top + box.height * .2, box.right, box.bottom - box.height * .2];
})"""


def test_no_text_lies_on_another_or_outside(browser, hard):  # noqa: F811 - a fixture
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(1000 * HANG)
    for name, svg in hard.items():
        page.set_content(f'<body style="margin:0">{svg}')
        wide, high = (int(number) for number in re.search(r'viewBox="0 0 (\d+) (\d+)"', svg).groups())
        boxes = [box for box in page.evaluate(BOXES) if box[0].strip()]
        assert len(boxes) > 5
        assert [box for box in boxes if box[1] < 0 or box[2] < 0 or box[3] > wide or box[4] > high] == [], name
        assert [
            (one[0], other[0])
            for place, one in enumerate(boxes)
            for other in boxes[place + 1 :]
            if one[1] < other[3] - 1 and other[1] < one[3] - 1 and one[2] < other[4] and other[2] < one[4]
        ] == [], name
    page.close()


@pytest.mark.parametrize("bold", [False, True])
def test_no_text_is_wider_than_it_is_taken_to_be(bold):
    fonts = pytest.importorskip("PIL.ImageFont")
    try:
        font = fonts.truetype("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf", 100)
    except OSError:
        pytest.skip("DejaVu Sans is not installed")
    words = [
        "Weights and shares",
        "12.3\u202f%",
        "−0.125",
        "WWWmmm@%",
        "illicit",
        "Ångström",
        "Привет, мир",
        "αβγω",
        "(other)",
        "QUICK BROWN",
        "a → b · c ≠ d",
    ]
    for text in words:
        assert font.getlength(text) <= width(text, 100) * (BOLD if bold else 1), text


def test_of_many_prompts_the_furthest_and_the_folders_are_drawn(tmp_path):
    aliases = [f"mix/{folder}/{i:02}.json" for folder in ("coins", "dice") for i in range(15)]
    counts = {alias: {"a": 30 + i, "b": 30} for i, alias in enumerate(aliases)}
    run_with(tmp_path / "run", {alias: prompt("ab", request=alias) for alias in aliases}, {"lora": counts})
    names = {path.stem for path in write_plots(evaluate([tmp_path]), tmp_path / "plots")}
    assert {"overview", "folders"} <= names
    assert sum(name.endswith(".distribution") for name in names) == 10


def test_without_a_package_nothing_is_written(tmp_path, monkeypatch):
    import sys

    run_with(tmp_path / "run", {"p.json": prompt("ab")}, {"lora": {"p.json": {"a": 5}}})
    found = evaluate([tmp_path])
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(InputError, match="vl-convert-python"):
        write_plots(found, tmp_path / "plots")
    assert not (tmp_path / "plots").exists()


def test_a_run_that_was_trained_further_has_no_end_until_it_ends(tmp_path):
    run = run_with(tmp_path / "run", {"p.json": prompt("ab")}, {"lora": {"p.json": {"a": 5, "b": 5}}},
                   {"exact_kl": {"p.json": 0.5}, "iterations": 1}, iteration(1, {"p.json": 0.9}))  # fmt: skip
    ends = []
    for _ in range(2):
        chart = content(evaluate([tmp_path])).training[0][1][0]
        ends.append((chart.curves[0].value, "last step" in chart.reading))
        run.metrics.write_text(run.metrics.read_text() + iteration(2, {"p.json": 0.4}))
    write_json(run.manifest, {"exact_kl": {"p.json": 0.3}, "iterations": 3})
    chart = content(evaluate([tmp_path])).training[0][1][0]
    assert ends == [("0.5000", True), ("0.4000", False)]
    assert chart.curves[0].value == "0.4000", "the manifest is of another number of iterations"
