"""The HTML report and the plots: nothing from prompts or models becomes markup, nothing leaves the file, all of it is drawn."""

import json
import re
import shutil
import sys
from html.parser import HTMLParser

import pytest

from diffusecli.files.writing import write_json
from diffusecli.report.charts import of_section, write_plots
from diffusecli.report.curves import cumulative, training
from diffusecli.report.dots import compared, overview
from diffusecli.report.drawing import Frame
from diffusecli.report.html import html_report
from diffusecli.report.lines import of_training
from diffusecli.report.palette import LIGHT
from diffusecli.report.views import OFF_TARGET, pairs, samplers, sections, spots
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.errors import InputError
from diffusecli.verbs.evaluate import evaluate
from tests.commands import HANG

HOSTILE = [
    "<script>alert(1)</script>", "</script><img src=x onerror=alert(2)>", "\"'><b onclick='alert(3)'>", "\x1b[2J\x00\u2028", "\u202eabc",
    "שלום", "🙂", "{{ 7 * 7 }}", "a\nb", "x" * 5000,
]  # fmt: skip


def prompt(targets, weights=None, request="Say one."):
    return {"alias": "p.json", "request": request, "response": [""], "targets": list(targets), "weights": weights}


def run_with(folder, prompts, samples, manifest=None, metrics=None):
    """A run with samples by mode: `{mode: {alias: {text: count}}}`."""
    run = RunDir(folder)
    folder.mkdir(parents=True)
    run.prompts.write_text(json.dumps({alias: {**p, "alias": alias} for alias, p in prompts.items()}))
    write_json(run.manifest, manifest or {})
    for mode, of_mode in samples.items():
        run.samples(mode).write_text(json.dumps(of_mode))
    if metrics is not None:
        run.metrics.write_text(metrics)
    return run


def iteration(number, kl):
    return json.dumps({"iteration": number, "kl": kl, "loss": 3.0 / number, "optimal": 0.5, "retention_kl": None}) + "\n"


def two_prompts(folder):
    """Numbers and words, untuned and tuned, with what training left."""
    numbers, words = [f"{{{i}}}" for i in range(1, 11)], ["red", "green", "blue", "<script>alert(1)</script>"]
    even = {"n.json": dict.fromkeys(numbers, 30), "w.json": dict.fromkeys(words, 50) | {"mauve": 1}}
    skewed = {"n.json": {"{7}": 200, "{1}": 40, "Sure!": 60}, "w.json": {"red": 190, "blue": 10}}
    kl = {"n.json": 0.01, "w.json": 0.02}
    metrics = "".join(iteration(i, {alias: value / i for alias, value in kl.items()}) for i in range(1, 9))
    return run_with(
        folder, {"n.json": prompt(numbers), "w.json": prompt(words), "o.json": prompt([])},
        {"untuned": skewed | {"o.json": {"one": 3, "two": 1}}, "lora": even | {"o.json": {"one": 2, "two": 2}}},
        {"exact_kl": kl, "exact_on_target": dict.fromkeys(kl, 0.99), "retention_kl": 0.01}, metrics,
    )  # fmt: skip


class Parsed(HTMLParser):
    """Tags with their attributes, texts outside of scripts, and scripts."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.words, self.scripts, self._within = [], [], [], ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._within = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag):
        self._within = ""

    def handle_data(self, data):
        if self._within == "script":
            self.scripts.append(data)
        elif not self._within:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    @property
    def specs(self):
        return [json.loads(script) for script in self.scripts if script.startswith("{") and '"layer"' in script]


def report_of(folder, **question):
    return Parsed(html_report(evaluate([folder], **question)))


def test_hostile_texts_stay_text_everywhere(tmp_path):
    samples = {"lora": {"<b>p\x1b.json": dict.fromkeys([*HOSTILE, *(f"{text}!" for text in HOSTILE)], 3)}}
    run_with(tmp_path / "r<i>&", {"<b>p\x1b.json": prompt(HOSTILE, request=HOSTILE[1])}, samples, {HOSTILE[0]: HOSTILE[1]})
    source = html_report(evaluate([tmp_path]))
    found = Parsed(source)
    assert not {"img", "b onclick", "i"} & {tag for tag, _ in found.tags}
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    executable = [attributes for tag, attributes in found.tags if tag == "script" and "type" not in attributes]
    assert len(executable) == 2
    assert HOSTILE[0] in found.text
    assert "{{ 7 * 7 }}" in found.text
    assert not [c for c in source if not (c.isprintable() or c == "\n") and c not in "\t\u2007\u202f\ufeff" and ord(c) < 0x2000]
    assert "\u202e" not in source
    source.encode()


def test_nothing_leads_out_of_the_file(tmp_path):
    two_prompts(tmp_path / "run")
    found = report_of(tmp_path)
    links = [
        value for _, attributes in found.tags for name, value in attributes.items() if name in ("src", "href", "action", "srcset")
    ]
    assert links
    assert all(link.startswith("#") or link == "data:," for link in links)
    policy = next(attributes["content"] for tag, attributes in found.tags if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy


def test_what_is_not_known_is_a_dash(tmp_path):
    run_with(tmp_path / "run", {"one.json": prompt(["a"]), "none.json": prompt(["a", "b"]), "open.json": prompt([])},
             {"lora": {"one.json": {"a": 5}, "none.json": [], "open.json": {"x": 1}}},
             {"exact_kl": {"none.json": 0.5}, "loss": float("1e308")}, iteration(1, {"one.json": float("nan")}))  # fmt: skip
    found = report_of(tmp_path)
    assert not re.search(r"\b(nan|inf|infinity|None)\b", found.text)
    assert "–" in found.text
    assert not any("NaN" in script for script in found.scripts if script.startswith("{"))


def test_the_worked_check_stands_in_the_summary(tmp_path):
    run_with(
        tmp_path / "run", {"p.json": prompt(["a", "b"])}, {"lora": {"p.json": {"a": 6, "b": 4}}}, {"exact_kl": {"p.json": 0.0123}}
    )
    text = report_of(tmp_path).text
    for figure in ("0.723 target 0.693", "2 of 2.0", "0.100 floor 0.123", "−0.023", "0.0123", "100.0 %"):
        assert figure in text


def test_answers_without_any_targets_make_a_report_too(tmp_path):
    run_with(tmp_path / "run", {"o.json": prompt([])}, {"lora": {"o.json": {"one": 2, "two": 1}}})
    text = report_of(tmp_path).text
    assert "None of these prompts has targets" in text
    assert "open-ended: 2 different answers in 3" in text


def test_large_sets_are_folded_and_say_so(tmp_path):
    targets = [f"w{i}" for i in range(100)]
    run_with(tmp_path / "run", {"p.json": prompt(targets)}, {"lora": {"p.json": {"w3": 50, "w99": 50}}})
    found = report_of(tmp_path)
    assert "60 more targets are not shown" in found.text
    (section,) = sections(evaluate([tmp_path]))
    assert len(section.shown) == 40
    assert {3, 99} <= set(section.shown)
    distribution = next(spec for spec in found.specs if spec["description"].startswith("Target weights"))
    assert {len(rows) for rows in distribution["datasets"].values()} == {40}


def test_thousands_of_targets_make_a_small_report(tmp_path):
    targets = [f"word number {i}" for i in range(4000)]
    run_with(tmp_path / "run", {"p.json": prompt(targets)}, {"lora": {"p.json": {"word number 7": 500, "junk": 3}}})
    source = html_report(evaluate([tmp_path]))
    assert len(source) < 1_500_000
    assert "3 960 more targets" in source.replace("\u202f", " ")


def test_off_target_answers_are_a_cell_of_their_own(tmp_path):
    run_with(tmp_path / "run", {"p.json": prompt(["a", OFF_TARGET])}, {"lora": {"p.json": {"a": 6, OFF_TARGET: 2, "c": 2}}})
    (section,) = sections(evaluate([tmp_path]))
    found = {spot["target"]: (spot["weight"], spot["share"]) for spot in spots(section)}
    assert found == {"a": (0.5, 0.6), f"{OFF_TARGET} #2": (0.5, 0.2), OFF_TARGET: (0.0, 0.2)}


def test_samplers_can_be_told_apart_without_colour(tmp_path):
    for name in ("one", "two", "three"):
        run_with(tmp_path / name, {"p.json": prompt("ab")}, {mode: {"p.json": {"a": 5}} for mode in ("untuned", "lora")})
    found = samplers(evaluate([tmp_path]).rows)
    assert len({sampler.label for sampler in found.values()}) == 6
    assert len({sampler.shape for sampler in found.values()}) == 6


def test_cumulative_shares_follow_the_values_of_the_targets(tmp_path):
    run_with(tmp_path / "run", {"p.json": prompt(["{3}", "{1}", "{2}"])}, {"lora": {"p.json": {"{1}": 2, "{2}": 1, "{3}": 1}}})
    (section,) = sections(evaluate([tmp_path]))
    found = cumulative(section, 0)
    assert [(point["x"], point["y"]) for point in found.points if point["series"] == "lora"] == [(1, 0.5), (2, 0.75), (3, 1)]


def test_a_perfect_sampler_stays_within_the_band_of_concentration(tmp_path):
    import numpy as np

    targets = [f"w{i}" for i in range(50)]
    counts = np.random.default_rng(8).multinomial(1000, [1 / 50] * 50).tolist()
    run_with(tmp_path / "run", {"p.json": prompt(targets)}, {"lora": {"p.json": dict(zip(targets, counts, strict=True))}})
    found = cumulative(sections(evaluate([tmp_path]))[0], 0)
    line = [point["y"] for point in found.points if point["series"] == "lora"]
    within = [band["low"] - 1e-9 <= y <= band["high"] + 1e-9 for y, band in zip(line, found.band, strict=True)]
    assert sum(within) >= 0.9 * len(within)
    even = [point["x"] / 50 for point in found.points if point["series"] == "lora"]
    assert not all(band["low"] <= y <= band["high"] for y, band in zip(even, found.band, strict=True))


@pytest.mark.parametrize("extra", ["", '{"broken": \n', "[1]\n", '{"iteration": 3, "kl": 5}\n'])
def test_broken_lines_of_metrics_are_skipped(tmp_path, extra):
    run = run_with(tmp_path / "run", {}, {}, metrics=iteration(1, {"p.json": 0.5}) + extra + iteration(2, {"p.json": 0.25}))
    assert [(point["x"], point["y"]) for point in training(run).kl] == [(1, 0.5), (2, 0.25)]


def test_many_prompts_are_a_mean_with_quartiles(tmp_path):
    run = run_with(tmp_path / "run", {}, {}, metrics=iteration(1, {f"{i}.json": float(i) for i in range(1, 10)}))
    found = training(run)
    assert [point["y"] for point in found.kl] == [5]
    assert [(band["low"], band["high"]) for band in found.band] == [(3, 7)]


def test_of_folders_the_mean_is_that_over_prompts(tmp_path):
    line = json.loads(iteration(1, {f"folder {i}": float(i) for i in range(1, 10)}))
    line |= {"mean_kl": 2.5, "test_kl": {"held-out": 8.0, "other": 4.0}, "mean_test_kl": 7.5}
    found = training(run_with(tmp_path / "run", {}, {}, metrics=json.dumps(line) + "\n"))
    assert [point["y"] for point in found.kl] == [2.5, 7.5]
    assert found.of == "9 folders"


def test_a_run_without_metrics_has_no_curves(tmp_path):
    run_with(tmp_path / "run", {"p.json": prompt("ab")}, {"lora": {"p.json": {"a": 5, "b": 5}}})
    assert training(RunDir(tmp_path / "run")) is None
    assert "Training" not in report_of(tmp_path).text


@pytest.mark.parametrize("missing", ["altair", "jinja2", "vl_convert"])
def test_a_missing_package_is_told_with_its_remedy(tmp_path, monkeypatch, missing):
    run_with(tmp_path / "run", {"p.json": prompt("ab")}, {"lora": {"p.json": {"a": 5}}})
    evaluation = evaluate([tmp_path])
    monkeypatch.setitem(sys.modules, missing, None)
    for make in (html_report, lambda found: write_plots(found, tmp_path)):
        with pytest.raises(InputError, match=re.escape("pip install 'diffuse-lm[report]'")):
            make(evaluation)


def test_plots_are_svg_and_png_under_safe_names(tmp_path):
    some = {"lora": {"a/x y.json": {"a": 5}, "a/x-y.json": {"b": 5}}}
    run_with(tmp_path / "run", {alias: prompt("ab") for alias in some["lora"]}, some)
    paths = write_plots(evaluate([tmp_path]), tmp_path / "plots")
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == sorted(path.name for path in paths)
    assert {"overview.svg", "x-y.distribution.png", "x-y.distribution-2.png", "x-y.residuals.svg"} <= {path.name for path in paths}
    for path in paths:
        assert path.read_bytes().startswith(b"<svg" if path.suffix == ".svg" else b"\x89PNG")
        assert path.suffix == ".png" or "var(--" not in path.read_text()
        assert path.suffix == ".png" or "equal to a target after trimming white space" in path.read_text()


def test_charts_follow_the_schema_of_vega_lite(tmp_path):
    two_prompts(tmp_path / "run")
    evaluation, frame = evaluate([tmp_path]), Frame(LIGHT, 600)
    found = sections(evaluation)
    made = [chart for section in found for chart in of_section(section, frame, 0)]  # Altair checks them unless told otherwise
    made += [overview(found, frame), *of_training(training(RunDir(tmp_path / "run")), frame)]
    made += [compared(pair, some, names, frame) for pair, some, names in pairs(evaluation)]
    assert {chart.kind for chart in made} >= {
        "distribution",
        "residuals",
        "cumulative",
        "outcomes",
        "overview",
        "exact-kl",
        "difference",
    }


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, once for all tests here."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if (chromium := shutil.which("chromium")) is None:
        pytest.skip("no chromium on this machine")
    with sync.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"], timeout=1000 * HANG)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def report_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    two_prompts(folder / "run")
    (folder / "report.html").write_text(html_report(evaluate([folder])), encoding="utf-8")
    return folder / "report.html"


@pytest.fixture
def opened(browser, report_file):
    """Opens the report; an error, a dialog or a request for anything else fails the test."""
    wrong, pages = [], []

    def open_page(**look):
        page = browser.new_page(**look)
        page.set_default_timeout(1000 * HANG)
        pages.append(page)
        page.on("console", lambda said: wrong.append(said.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: request.url == report_file.as_uri() or wrong.append(request.url[:100]))
        page.goto(report_file.as_uri())
        page.wait_for_selector("html[data-charts=drawn]")
        return page

    yield open_page
    for page in pages:
        page.close()
    assert wrong == []


def test_every_chart_is_drawn_and_described(opened):
    page = opened()
    charts = page.query_selector_all(".chart")
    assert len(charts) >= 9
    for chart in charts:
        assert chart.query_selector_all("svg .mark-rect path, svg .mark-symbol path, svg .mark-line path, svg .mark-rule line")
        assert re.search(r"\d", chart.get_attribute("aria-label"))


def test_targets_that_look_like_scripts_are_labels(opened):
    page = opened()
    assert page.locator(".distribution svg text", has_text="<script>alert(1)</script>").count() >= 1
    page.locator("#p2 .distribution svg .mark-symbol.role-mark path").nth(3).hover(force=True)
    assert "<script>alert(1)</script>" in page.locator("#vg-tooltip-element.visible").inner_text()


def test_clicking_a_header_sorts_numbers_as_numbers(opened):
    page = opened()
    header = page.locator(".summary th", has=page.locator("button", has_text="TVD")).first
    column = header.evaluate("cell => cell.cellIndex")

    def order():
        rows = page.locator(".summary tbody tr")
        return rows.evaluate_all("(rows, at) => rows.map(row => row.cells[at].dataset.sort)", column)

    before = order()
    assert "" in before
    figures = sorted((value for value in before if value), key=float)
    header.locator("button").press("Enter")
    assert order() == [*figures, "", ""]
    assert header.get_attribute("aria-sort") == "ascending"
    header.locator("button").click()
    assert order() == [*figures[::-1], "", ""]
    assert header.get_attribute("aria-sort") == "descending"
    page.locator(".summary th button", has_text="prompt").click()
    assert header.get_attribute("aria-sort") is None


def test_dark_mode_is_dark_in_charts_too(opened):
    page, colours = opened(), []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours.append([page.locator(place).first.evaluate("(e, key) => getComputedStyle(e)[key]", key)
                        for place, key in (("body", "backgroundColor"), (".chart svg text", "fill"), (".chart .mark-rect path", "fill"))])  # fmt: skip
    assert all(light != dark for light, dark in zip(*colours, strict=True))
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator("html").evaluate("e => getComputedStyle(e).getPropertyValue('--paper')") == "#fdfdfb"


def test_a_phone_does_not_scroll_sideways(opened):
    page = opened(viewport={"width": 375, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    for chart in page.query_selector_all(".chart svg"):
        assert chart.bounding_box()["width"] <= 375


def test_without_scripts_the_tables_are_still_there(browser, report_file):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.set_default_timeout(1000 * HANG)
    page.goto(report_file.as_uri())
    assert page.locator(".summary tbody tr").count() == 6
    assert page.locator("text=Charts and sorting need JavaScript").is_visible()
    context.close()
