"""The HTML report and the plots: nothing from prompts or models becomes markup, nothing leaves the file, all of it is drawn."""

import io
import json
import re
import shutil
import sys
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from diffusecli.evaluation.metrics import ExactFigures
from diffusecli.evaluation.run_records import Manifest, Settings
from diffusecli.evaluation.sample_set import RunFacts, SampleSet
from diffusecli.files.writing import write_json
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.prompt import Prompt
from diffusecli.report.content import content
from diffusecli.report.curves import cumulative, training
from diffusecli.report.histogram import Showing, shown_cells
from diffusecli.report.html import html_report
from diffusecli.report.overview_chart import of_prompts
from diffusecli.report.palette import DARK, LIGHT
from diffusecli.report.pictures import write_plots
from diffusecli.report.scales import Scale
from diffusecli.report.target_charts import of_targets
from diffusecli.report.templates import source
from diffusecli.report.views import OFF_TARGET, samplers, sections, spots
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.errors import InputError
from diffusecli.verbs.evaluate import Question, evaluate
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


def facts_of(run, **manifest):
    return RunFacts(str(run.path), run, Manifest(**manifest), Settings(), {})


def four_ages(folder):
    """One question to four age groups, which only the system texts tell apart; the last group has wrong shares."""
    dishes = ["Pizza", "Sushi", "Salad", "Pasta with tomato sauce"]
    prompts = {f"food/age-{i}.json": prompt(dishes, [4, 3, 2, 1], "What is your favourite dish?") for i in range(1, 5)}
    for i, asked in enumerate(prompts.values(), 1):
        asked["system"] = f"You are {10 * i + 9} years old."
    right, wrong = dict(zip(dishes, (210, 138, 104, 48), strict=True)), dict(zip(dishes, (48, 104, 138, 210), strict=True))
    tuned = {alias: wrong if "4" in alias else right for alias in prompts}
    untuned = {alias: {"Pizza": 270, "Salad": 30, "As a model, I do not eat.": 200} for alias in prompts}
    return run_with(folder, prompts, {"untuned": untuned, "lora": tuned}, {"exact_kl": dict.fromkeys(prompts, 0.01)})


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
    assert len(executable) == 1
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
    assert not [value for _, attributes in found.tags for value in attributes.values() if value and re.search(r"nan|inf", value)]


def test_the_worked_check_stands_in_the_summary(tmp_path):
    run_with(
        tmp_path / "run", {"p.json": prompt(["a", "b"])}, {"lora": {"p.json": {"a": 6, "b": 4}}}, {"exact_kl": {"p.json": 0.0123}}
    )
    text = report_of(tmp_path).text
    for figure in (
        "0.723 target 0.693",
        "2 of 2 perfect sampler 2.0",
        "0.100 perfect sampler 0.123",
        "−0.023",
        "0.0123",
        "100.0 %",
    ):
        assert figure in text


def test_answers_without_any_targets_make_a_report_too(tmp_path):
    run_with(tmp_path / "run", {"o.json": prompt([])}, {"lora": {"o.json": {"one": 2, "two": 1}}})
    text = report_of(tmp_path).text
    assert "This prompt has no targets, so no answers are compared." in text
    assert "open-ended: 2 different answers in 3" in text


def test_large_sets_are_folded_and_say_so(tmp_path):
    targets = [f"w{i}" for i in range(100)]
    run_with(tmp_path / "run", {"p.json": prompt(targets)}, {"lora": {"p.json": {"w3": 50, "w99": 50}}})
    found = report_of(tmp_path)
    assert "60 more targets are not shown" in found.text
    (section,) = sections(evaluate([tmp_path]))
    assert len(section.shown) == 40
    assert {3, 99} <= set(section.shown)
    assert len(of_targets(section).rows) == 40


def test_thousands_of_targets_make_a_small_report(tmp_path):
    targets = [f"word number {i}" for i in range(4000)]
    run_with(tmp_path / "run", {"p.json": prompt(targets)}, {"lora": {"p.json": {"word number 7": 500, "junk": 3}}})
    source = html_report(evaluate([tmp_path]))
    assert len(source) < 150_000
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
    assert [(point["x"], point["y"]) for point in found.points if point["series"] == "tuned"] == [(1, 0.5), (2, 0.75), (3, 1)]


@pytest.mark.parametrize("targets", [["{1}", "{2}"], ["a", "b"], ["rare", "often"]], ids=["values", "equal weights", "weights"])
def test_the_band_of_cumulative_shares_is_that_of_the_tuned_sampler(tmp_path, targets):
    weights = [1, 3] if "rare" in targets else None
    answers = {"untuned": {"p.json": {targets[0]: 30, "junk": 70}}, "lora": {"p.json": {targets[0]: 300, targets[1]: 700}}}
    found = evaluate([run_with(tmp_path / "run", {"p.json": prompt(targets, weights)}, answers).path])
    both = cumulative(sections(found)[0], 0)
    assert "a perfect sampler with 1\u202f000 answers" in both.reading
    alone = cumulative(sections(replace(found, rows=tuple(row for row in found.rows if row.mode == "lora")))[0], 0)
    assert both.band == alone.band


def page_of(folder, answers, targets=("a", "b")):
    return html_report(evaluate([run_with(folder / "run", {"p.json": prompt(targets)}, answers).path]))


def test_a_report_says_how_many_answers_each_sampler_gave(tmp_path):
    answers = {"untuned": {"p.json": {"a": 60, "b": 40}}, "lora": {"p.json": {"a": 2100, "b": 2000}}}
    page = page_of(tmp_path, answers)
    assert "4\u202f100 answers of tuned and 100 of untuned" in page
    assert "100 answers<" in page_of(tmp_path / "same", {mode: {"p.json": {"a": 60, "b": 40}} for mode in ("untuned", "lora")})


def test_a_legend_names_only_the_lines_that_are_drawn(tmp_path):
    without = {"untuned": {"p.json": {"junk": 100}}, "lora": {"p.json": {"a": 60, "b": 40}}}
    chart = of_targets(sections(evaluate([run_with(tmp_path / "run", {"p.json": prompt("ab")}, without).path]))[0])
    assert [sampler.label for sampler in chart.samplers] == ["tuned"]
    assert chart.reading.endswith("Without shares, because no answer is valid: untuned.")
    assert not any(row.lines for row in chart.rows)
    drawn = {"untuned": {"p.json": {"a": 100}}, "lora": {"p.json": {"a": 60, "b": 40}}}
    chart = of_targets(sections(evaluate([run_with(tmp_path / "with", {"p.json": prompt("ab")}, drawn).path]))[0])
    assert [sampler.label for sampler in chart.samplers] == ["tuned", "untuned"]
    assert all(row.lines for row in chart.rows)


def test_off_target_and_unfinished_shares_are_of_every_sampler_also_without_valid_answers(tmp_path):
    cut, asked = Answers({"junk": 40}), Prompt(alias="p.json", request="Say one.", targets=("a", "b"))
    cut.add("{a", 60, unfinished=True)
    given = SampleSet("run", "untuned", asked, cut), SampleSet("run", "lora", asked, Answers({"a": 60, "b": 39, "junk": 1}))
    found = evaluate([], Question(given=given))
    chart = of_targets(sections(found)[0])
    assert [head.name for head in chart.heads] == ["weight", "tuned", "untuned"]
    assert {row.label: row.figures for row in chart.rows} == {
        "a": ("50.0\u202f%", "60.6\u202f%", "–"),
        "b": ("50.0\u202f%", "39.4\u202f%", "–"),
        OFF_TARGET: ("", "1.0\u202f%", "40.0\u202f%"),
        "(unfinished)": ("", "0.0\u202f%", "60.0\u202f%"),
    }
    assert 'id="show-untuned"' not in html_report(found), "there is nothing to hide"
    some = {"untuned": {"p.json": {"a": 1, "junk": 99}}, "lora": {"p.json": {"a": 60, "b": 40}}}
    assert 'id="show-untuned"' in page_of(tmp_path / "some", some)


def test_samplers_without_any_valid_answer_are_in_head_and_legend_if_there_are_no_others(tmp_path):
    none = {mode: {"p.json": {"junk": 100}} for mode in ("untuned", "lora")}
    chart = of_targets(sections(evaluate([run_with(tmp_path / "run", {"p.json": prompt("ab")}, none).path]))[0])
    assert [sampler.label for sampler in chart.samplers] == ["tuned", "untuned"]
    assert [head.name for head in chart.heads] == ["weight", "tuned", "untuned"]
    assert chart.reading == "No answer is valid, so there are no shares."


def test_the_next_step_is_below_the_verdicts_with_its_command_as_code(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "diffusecli.report.html.next_steps", lambda found: ["train further: `diffuse train 'a b.yaml' --more 25`", "wait"]
    )
    step = '<li>next: train further: <code>diffuse train &#39;a b.yaml&#39; <span class="option">--more</span> 25</code></li><li>next: wait</li>'
    page = page_of(tmp_path / "one", {"lora": {"p.json": {"a": 60, "b": 40}}})
    assert page.count(step) == 1
    assert page.index('<ul class="verdicts">') < page.index(step) < page.index('<figure class="chart distribution">')
    run = run_with(
        tmp_path / "four", {f"{i}.json": prompt("ab") for i in "1234"}, {"lora": {f"{i}.json": {"a": 9, "b": 9} for i in "1234"}}
    )
    page = html_report(evaluate([run.path]))
    assert page.count(step) == 1
    assert page.index('<figure class="chart overview">') < page.index(step) < page.index('<section class="prompt"')


def test_each_drift_says_of_which_instructions_and_when_and_has_a_scale(tmp_path):
    lines = "".join(json.dumps({"iteration": i, "kl": {"p.json": 0.1}, "retention_kl": 0.0971}) + "\n" for i in (1, 2))
    answers = {"lora": {"p.json": {"a": 60, "b": 40}}}
    run = run_with(
        tmp_path / "run", {"p.json": prompt("ab")}, answers, {"exact_kl": {"p.json": 0.1}, "retention_kl": 0.0901}, lines
    )
    found = html_report(evaluate([run.path]))
    scale = "(0.02 is small, 0.4 is large)"
    above, drift, rest = found.partition(
        f"Drift from the base model on held-out instructions: <b>0.0901</b> nats per token {scale}"
    )
    assert drift
    assert above.count('<p class="judgement') == 1, "below the verdict"
    assert "0.0901" not in re.sub("<pre>.*?</pre>", "", above + rest, flags=re.DOTALL), "once"
    assert (
        f"<b>Drift on trained instructions</b> Drift from the base model on the trained instructions, not on held-out ones, "
        f"in nats per token {scale}. The value is of the last iteration." in rest
    )
    assert "<dt>drift</dt>" in rest


def test_an_exact_tvd_is_below_the_verdict_and_in_the_table_of_all_figures(tmp_path):
    answers = {"untuned": {"p.json": {"a": 90, "b": 10}}, "lora": {"p.json": {"a": 60, "b": 40}}}
    found = evaluate([run_with(tmp_path / "run", {"p.json": prompt("ab")}, answers).path])
    assert "exact TVD" not in html_report(found)
    tuned, untuned = found.rows
    measured = html_report(replace(found, rows=(replace(tuned, exact=ExactFigures(0.002, 0.99, 0.0321)), untuned)))
    assert "<dt>exact TVD</dt><dd>0.032</dd>" in measured
    table = measured[measured.index('<table class="summary">') :]
    heads = re.findall("<button[^>]*>(.*?)</button>", table.partition("</thead>")[0])
    rows = [re.findall(r"<t[dh]\b[^>]*>(.*?)</t[dh]>", row, re.DOTALL) for row in table.partition("</tbody>")[0].split("<tr")[2:]]
    assert [dict(zip(heads, row, strict=True))["exact TVD"] for row in rows] == ["0.032", "–"]
    assert "<dt>exact TVD</dt><dd>The total variation distance of the model’s own probabilities" in measured


def test_the_drift_of_several_runs_has_their_names(tmp_path):
    for name, drift in (("one", 0.01), ("two", 0.02)):
        manifest = {"exact_kl": {"p.json": 0.1}, "retention_kl": drift}
        run_with(tmp_path / name, {"p.json": prompt("ab")}, {"lora": {"p.json": {"a": 60, "b": 40}}}, manifest)
    assert "on held-out instructions: one 0.0100 , two 0.0200 nats per token" in report_of(tmp_path).text


@pytest.mark.parametrize("prompts", [1, 2, 4])
def test_drift_comes_before_fields_and_charts(tmp_path, prompts):
    asked = {f"{i}.json": prompt("ab", request=f"Say {i}.") for i in range(prompts)}
    run_with(
        tmp_path / "run",
        asked,
        {"lora": {alias: {"a": 60, "b": 40} for alias in asked}},
        {"exact_kl": dict.fromkeys(asked, 0.1), "retention_kl": 0.01},
    )
    page = html_report(evaluate([tmp_path]))
    assert page.count("Drift from the base model on held-out") == 1
    assert page.index("Drift from the base model on held-out") < page.index('<figure class="chart distribution">')


def test_a_report_explains_the_figures_that_it_has(tmp_path):
    def explained(page):
        return re.findall("<dt>([^<]*)</dt>", page[page.index('<dl class="glossary">') :].partition("</dl>")[0])

    page = page_of(tmp_path, {"lora": {"p.json": {"a": 60, "b": 40}}})
    closed = explained(page)
    assert "with the exact 95\u202f% interval (Clopper and Pearson’s)" in page
    own = [
        "✓ ≈ ? ✗",
        "valid",
        "entropy",
        "effective outcomes",
        "distinct targets",
        "TVD",
        "perfect sampler, excess TVD",
        "true TVD",
        "test of fit, p",
        "residual",
    ]
    assert closed == [*own, "simulated samples", "G", "Cohen&#39;s w", "detectable TVD"]
    assert (
        "<dt>detectable TVD</dt><dd>Smallest TVD of valid answers that the test of fit detects in 80\u202f% of cases.</dd>" in page
    )
    assert "0 is none, 0.1 small, 0.5 large.</dd>" in page
    assert explained(page_of(tmp_path / "open", {"lora": {"p.json": {"a": 60, "b": 40}}}, targets=())) == [
        "unseen, Chao1",
        "distinct of 10",
    ]
    page = html_report(evaluate([records_of(tmp_path / "records", (405, 104, 97, 394))]))
    assert explained(page) == [*closed, "known values", "copies", "field", "Cramér&#39;s V"]
    assert "<dt>copies</dt><dd>Answers that are a whole target, not a new combination of values.</dd>" in page
    assert "Association of two fields, from 0 (independent) to 1 (a value of one fixes the other).</dd>" in page


def test_figures_of_a_verdict_have_typographic_signs_and_show_what_belongs_together(tmp_path):
    page = page_of(tmp_path, {"lora": {"p.json": {"a": 900, "b": 100}}})
    assert "Pearson&#39;s X²" in page
    assert "X2<" not in page
    for name in ("by G", "by TVD", "by targets seen"):
        assert f'<th scope="row" class="below"><bdi>{name}</bdi>' in page
    assert "p\u202f≤\u202f0.0001" in page


def test_a_perfect_sampler_stays_within_the_band_of_concentration(tmp_path):
    import numpy as np

    targets = [f"w{i}" for i in range(50)]
    counts = np.random.default_rng(8).multinomial(1000, [1 / 50] * 50).tolist()
    run_with(tmp_path / "run", {"p.json": prompt(targets)}, {"lora": {"p.json": dict(zip(targets, counts, strict=True))}})
    found = cumulative(sections(evaluate([tmp_path]))[0], 0)
    line = [point["y"] for point in found.points if point["series"] == "tuned"]
    within = [band["low"] - 1e-9 <= y <= band["high"] + 1e-9 for y, band in zip(line, found.band, strict=True)]
    assert sum(within) >= 0.9 * len(within)
    even = [point["x"] / 50 for point in found.points if point["series"] == "tuned"]
    assert not all(band["low"] <= y <= band["high"] for y, band in zip(even, found.band, strict=True))


@pytest.mark.parametrize("extra", ["", '{"broken": \n', "[1]\n", '{"iteration": 3, "kl": 5}\n'])
def test_broken_lines_of_metrics_are_skipped(tmp_path, extra):
    run = run_with(tmp_path / "run", {}, {}, metrics=iteration(1, {"p.json": 0.5}) + extra + iteration(2, {"p.json": 0.25}))
    assert [(point["x"], point["y"]) for point in training(facts_of(run)).kl] == [(1, 0.5), (2, 0.25)]


def test_many_prompts_are_a_mean_with_quartiles(tmp_path):
    run = run_with(tmp_path / "run", {}, {}, metrics=iteration(1, {f"{i}.json": float(i) for i in range(1, 10)}))
    found = training(facts_of(run))
    assert [point["y"] for point in found.kl] == [5]
    assert [(band["low"], band["high"]) for band in found.band] == [(3, 7)]


def test_of_folders_the_mean_is_that_over_prompts(tmp_path):
    line = json.loads(iteration(1, {f"folder {i}": float(i) for i in range(1, 10)}))
    line |= {"mean_kl": 2.5, "test_kl": {"held-out": 8.0, "other": 4.0}, "mean_test_kl": 7.5}
    found = training(facts_of(run_with(tmp_path / "run", {}, {}, metrics=json.dumps(line) + "\n")))
    assert [point["y"] for point in found.kl] == [2.5, 7.5]
    assert found.of == "9 folders"


def test_a_run_without_metrics_has_no_curves(tmp_path):
    run_with(tmp_path / "run", {"p.json": prompt("ab")}, {"lora": {"p.json": {"a": 5, "b": 5}}})
    assert training(facts_of(RunDir(tmp_path / "run"))) is None
    assert "Training" not in report_of(tmp_path).text


def test_only_plots_need_the_extra(tmp_path, monkeypatch):
    run_with(tmp_path / "run", {"p.json": prompt("ab")}, {"lora": {"p.json": {"a": 5}}})
    evaluation = evaluate([tmp_path])
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    assert html_report(evaluation).startswith("<!doctype html>")
    with pytest.raises(InputError, match=re.escape("--plots needs vl-convert-python. Run `pip install 'diffuse-lm[report]'`")):
        write_plots(evaluation, tmp_path)


def test_plots_are_svg_and_png_under_safe_names(tmp_path):
    some = {"lora": {"a/x y.json": {"a": 5}, "a/x-y.json": {"b": 5}}}
    run_with(tmp_path / "run", {alias: prompt("ab") for alias in some["lora"]}, some)
    paths = write_plots(evaluate([tmp_path]), tmp_path / "plots")
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == sorted(path.name for path in paths)
    assert {"overview.svg", "x-y.distribution.png", "x-y.distribution-2.png"} <= {path.name for path in paths}
    for path in paths:
        assert path.read_bytes().startswith(b"<svg" if path.suffix == ".svg" else b"\x89PNG")
        assert path.suffix == ".png" or "var(--" not in path.read_text()
        assert path.suffix == ".png" or "equal to a target after trimming white space" in path.read_text()


@pytest.mark.parametrize(("request_text", "title"), [
    ("Roll 2 dice and report the total. Output only the number.", "Roll 2 dice and report the total."),
    ("Say one", "Say one"), ("</title><b>", "</title><b>"),
])  # fmt: skip
def test_the_title_is_what_was_asked(tmp_path, request_text, title):
    run_with(tmp_path / "run", {"p.json": prompt("ab", request=request_text)}, {"lora": {"p.json": {"a": 5, "b": 5}}})
    source = html_report(evaluate([tmp_path]))
    found = Parsed(source)
    assert "title" in {tag for tag, _ in found.tags}
    assert re.search(r"<title>(.*?)</title>", source).group(1) == escape(title)
    assert re.search(r"<h1><bdi>(.*?)</bdi></h1>", source).group(1) == escape(title)


def test_the_title_of_many_requests_names_the_first_and_counts_the_others(tmp_path):
    prompts = {f"{i}.json": prompt("ab", request=f"Question {i}?") for i in range(5)}
    run_with(tmp_path / "run", prompts, {"lora": {key: {"a": 5, "b": 5} for key in prompts}})
    assert "<title>Question 0? · Question 1? · 3 more requests</title>" in html_report(evaluate([tmp_path]))


def test_a_title_of_several_long_requests_names_the_first_whole(tmp_path):
    prompts = {f"{i}.json": prompt("ab", request=f"Do you agree with statement number {i} of the questionnaire?") for i in range(3)}
    run_with(tmp_path / "run", prompts, {"lora": {key: {"a": 5, "b": 5} for key in prompts}})
    page = html_report(evaluate([tmp_path]))
    assert "<title>Do you agree with statement number 0 of the questionnaire? · 2 more requests</title>" in page


def test_the_system_text_is_shown_where_prompts_differ_in_it(tmp_path):
    four_ages(tmp_path / "run")
    source = html_report(evaluate([tmp_path]))
    for age in (19, 29, 39, 49):
        assert f'<dd class="system" dir="auto">You are {age} years old.</dd>' in source
        assert f'<span class="sub" dir="auto">You are {age} years old.</span>' in source
    assert "<title>What is your favourite dish? (4 prompts)</title>" in source


def test_the_system_text_of_the_config_is_shown_for_prompts_without_one(tmp_path):
    own = {**prompt("ab"), "system": "Own text."}
    run_with(tmp_path / "run", {"p.json": prompt("ab"), "q.json": own}, {"lora": {key: ["a", "b"] for key in ("p.json", "q.json")}},
             {"chat": {"system": "Text of the config."}})  # fmt: skip
    source = html_report(evaluate([tmp_path]))
    assert re.findall(r'<dd class="system" dir="auto">(.*?)</dd>', source) == ["Text of the config.", "Own text."]


@pytest.mark.parametrize(("asked", "rest"), [
    ("Roll 2 dice and report the total.\nOutput only\nthe number.", "Output only\nthe number."), ("Say a or b", None), ("say " * 60, "say " * 60),
])  # fmt: skip
def test_the_only_request_is_shown_once(tmp_path, asked, rest):
    run_with(tmp_path / "run", {"p.json": prompt("ab", request=asked)}, {"lora": {"p.json": {"a": 5, "b": 5}}})
    found = re.findall(r"<blockquote.*?>(.*?)</blockquote>", html_report(evaluate([tmp_path])), re.DOTALL)
    assert [text.strip() for text in found] == ([rest.strip()] if rest else [])


@pytest.mark.parametrize(("open_ended", "listed"), [(0, False), (1, True)])
def test_a_sampler_with_one_prompt_has_its_verdict_at_the_top_of_several_prompts(tmp_path, open_ended, listed):
    others = [f"o{i}.json" for i in range(open_ended)]
    samples = {"lora": {"p.json": {"a": 500, "b": 500}, **{name: {"one": 1} for name in others}}}
    run_with(tmp_path / "run", {"p.json": prompt("ab"), **{name: prompt([]) for name in others}}, samples)
    source = html_report(evaluate([tmp_path]))
    assert ('<span class="tally"><span class="good">follows the target</span></span>' in source) == listed
    assert ('<figure class="chart overview">' in source) == listed
    assert "0 of 1" not in source
    assert "1 of 1" not in source


@pytest.mark.parametrize("system", [None, 5, {"a": "b"}, ["x"]])
def test_a_system_text_that_is_none_is_not_shown(tmp_path, system):
    run_with(tmp_path / "run", {"p.json": prompt("ab")}, {"lora": {"p.json": ["a", "b"]}}, {"chat": {"system": system}})
    assert 'class="system"' not in html_report(evaluate([tmp_path]))


def test_earlier_turns_and_an_empty_system_text_are_shown(tmp_path):
    talk = [{"role": "system", "content": ""}, {"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Good day."},
            {"role": "user", "content": "Say a or b."}]  # fmt: skip
    asked = {"messages": talk, "targets": ["a", "b"], "alias": "p.json"}
    run_with(tmp_path / "run", {"p.json": asked}, {"lora": {"p.json": {"a": 5, "b": 5}}})
    text = report_of(tmp_path).text
    assert "system (empty) user Hello. assistant Good day. Say a or b." in text


def test_verdicts_are_signs_words_and_colours(tmp_path):
    four_ages(tmp_path / "run")
    text, source = report_of(tmp_path).text, html_report(evaluate([tmp_path]))
    assert "3 of 4 follow their target" in text
    assert "0 of 4 follow their target" in text
    assert source.count('<p class="judgement good">') == 3
    assert source.count('<p class="judgement bad">') == 1 + 4  # the last group, and each untuned model
    assert source.count('<p class="judgement good strong">') == 3
    for sign, words in (("✓", "follows the target"), ("✗", "wrong shares")):
        assert f"{sign} tuned : {words}" in text


def contrast(one, other):
    """The contrast of two colours by WCAG 2."""

    def light(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_standard():
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("palette", [LIGHT, DARK])
@pytest.mark.parametrize("name", ["ink", "muted", "good", "near", "bad"])
def test_colours_of_text_have_enough_contrast(palette, name):
    assert contrast(palette[name], palette["paper"]) >= 4.5


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_bars_have_enough_contrast_and_differ_from_the_range_of_perfect_samplers(palette):
    assert contrast(palette["target"], palette["paper"]) >= 3
    opacity = float(re.search(r"\.noise \{[^}]*fill-opacity: ([.\d]+)", source("marks.css"))[1])
    parts = [[int(palette[name][i : i + 2], 16) for i in (1, 3, 5)] for name in ("ink", "paper")]
    mixed = [round(opacity * ink + (1 - opacity) * paper) for ink, paper in zip(*parts, strict=True)]
    assert contrast(palette["target"], "#{:02x}{:02x}{:02x}".format(*mixed)) >= 2.3


def test_axes_are_linear_and_an_untuned_outlier_does_not_squeeze_them(tmp_path):
    targets = [f"{{{i}}}" for i in range(1, 11)]
    run_with(tmp_path / "run", {"p.json": prompt(targets)},
             {"untuned": {"p.json": {"{7}": 990, "{1}": 10}}, "lora": {"p.json": dict.fromkeys(targets, 100)}})  # fmt: skip
    (section,) = sections(evaluate([tmp_path]))
    chart = of_targets(section)
    at = [tick.at for tick in chart.ticks]
    assert len(at) > 2
    assert [b - a for a, b in pairwise(at)] == pytest.approx([at[1] - at[0]] * (len(at) - 1), abs=0.02)
    assert all(row.bar > 60 for row in chart.rows)
    assert [sampler.label for sampler in section.samplers] == ["tuned", "untuned"]
    assert [row.label for row in chart.rows for line in row.lines if line.beyond] == ["{7}"]
    assert all(2 <= mark.at <= 99.5 for row in chart.rows for mark in (*row.marks, *row.lines))


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (-1e308, 1e308), (0.0, 1e308), (1e-320, 2e-320), (3.0, 3.0), (-0.2, -0.1), (0.1, 1e-9 + 0.1)]
)
def test_positions_are_within_the_plot_whatever_the_values(low, high):
    scale = Scale(low, high)
    for value in (low, high, low / 2 + high / 2, -1e308, 1e308, 0.0):
        assert 2 <= scale.at(value) <= 97
    assert scale.at(low) <= scale.at(high)
    assert 1 <= len(scale.ticks()) <= 7
    assert all(2 <= tick.at <= 97 for tick in (*scale.ticks(), *scale.rounded().ticks()))
    large = Scale(1e-6, 1.5e308, logarithmic=True).rounded()
    assert all(2 <= tick.at <= 97 for tick in large.ticks())


def test_a_target_that_differs_is_outside_of_the_range_of_noise(tmp_path):
    import numpy as np

    draws, targets = np.random.default_rng(3), [f"w{i}" for i in range(30)]
    weights = draws.dirichlet([1] * 30)
    for number in range(6):
        drawn = draws.multinomial(40 * 3**number, draws.dirichlet(30 * weights + 0.1)).tolist()
        counts = dict(zip(targets, drawn, strict=True)) | {"junk": 500}
        run_with(tmp_path / f"r{number}", {"p.json": prompt(targets, weights.tolist())}, {"lora": {"p.json": counts}})
    marked = 0
    for number in range(6):
        (section,) = sections(evaluate([tmp_path / f"r{number}"]))
        for row in of_targets(section).rows:
            for mark in row.marks:
                inside = row.noise[0] <= mark.at <= row.noise[0] + row.noise[1]
                marked += mark.filled
                assert not (mark.filled and inside)
    assert marked >= 10


def test_without_a_valid_answer_the_texts_are_open_and_the_chart_is_folded(tmp_path):
    run_with(tmp_path / "run", {"p.json": prompt("ab")}, {"lora": {"p.json": {"Sure!": 9, "No": 1}}})
    source = html_report(evaluate([tmp_path]))
    assert "<details open><summary>Most frequent texts off target</summary>" in source
    assert "<details><summary>Weights and shares</summary>" in source


@pytest.mark.parametrize(("counts", "texts_open", "chart_folded"), [({"Sure!": 97, "a": 3}, True, True), ({"Sure!": 50, "a": 25, "b": 25}, True, False),
                                                                    ({"Sure!": 2, "a": 90, "b": 8}, False, False)])  # fmt: skip
def test_texts_are_open_if_off_target_leads_the_verdict_and_shares_of_few_answers_are_folded(
    tmp_path, counts, texts_open, chart_folded
):
    source = page_of(tmp_path, {"lora": {"p.json": counts}})
    assert ("<details open><summary>Most frequent texts off target</summary>" in source) == texts_open
    assert ("<details><summary>Most frequent texts off target</summary>" in source) == (not texts_open)
    assert ("<details><summary>Weights and shares</summary>" in source) == chart_folded


def test_texts_left_out_are_counted_unfinished_ones_too():
    cut, asked = Answers({f"off {i}": 10 - i for i in range(9)}), Prompt(alias="p.json", request="Say one.", targets=("a", "b"))
    for i in range(6):
        cut.add(f"{{a{i}", 1, unfinished=True)
    given = SampleSet("run", "untuned", asked, Answers({"off": 5, "a": 5})), SampleSet("run", "lora", asked, cut)
    page = html_report(evaluate([], Question(given=given)))
    assert re.findall("and [0-9]+ more [^<]*", page) == ["and 4 more texts off target and 1 more unfinished text"]


def test_small_weights_are_written_with_enough_digits(tmp_path):
    targets = [f"w{i}" for i in range(5000)]
    run_with(tmp_path / "run", {"p.json": prompt(targets)}, {"lora": {"p.json": dict.fromkeys(targets, 1)}})
    (section,) = sections(evaluate([tmp_path]))
    assert of_targets(section).rows[0].figures == ("0.020\u202f%", "0.020\u202f%")


def test_small_figures_of_targets_are_not_written_as_zero_or_as_powers(tmp_path):
    run_with(tmp_path / "run", {"p.json": prompt("abc", [99999, 1, 1])}, {"lora": {"p.json": {"a": 100}}})
    text = report_of(tmp_path).text.replace("\u202f", " ")
    assert "b <0.01 % 0 <0.1 0.00 %" in text
    assert "<0.1 %" in text
    assert "e−" not in text.partition("Numbers of every target")[2].partition("*: differs")[0]


def test_more_samplers_than_columns_are_points_and_the_first_have_figures(tmp_path):
    for name in "abcdef":
        run_with(tmp_path / name, {"p.json": prompt("xy")}, {"lora": {"p.json": {"x": 50, "y": 50}}})
    (section,) = sections(evaluate([tmp_path]))
    chart = of_targets(section)
    assert len(chart.heads) == 4
    assert {len(row.marks) for row in chart.rows} == {6}
    assert all(0 < mark.y < row.height for row in chart.rows for mark in row.marks)
    assert "The numbers of all samplers are below." in chart.reading


def test_folders_are_medians_with_lines_to_the_quantile(tmp_path):
    aliases = [f"mix/{folder}/{i}.json" for folder in ("coins", "dice") for i in range(3)]
    run_with(tmp_path / "run", {alias: prompt("ab", request=alias) for alias in aliases},
             {"lora": {alias: {"a": 50 + 10 * (i % 3), "b": 50 - 10 * (i % 3)} for i, alias in enumerate(aliases)}})  # fmt: skip
    found = evaluate([tmp_path])
    chart = content(found).folder_chart
    named = {row.label: row.figures for row in chart.rows}
    assert [head.name for head in chart.heads] == ["follow", "TVD"]
    assert named["coins/"] == ("2 of 3", "0.100")  # 50, 60 and 70 of 100 of an even coin
    assert named["all prompts"] == ("4 of 6", "0.100")
    assert [row.label for row in chart.rows if row.split] == ["all prompts"]
    text = report_of(tmp_path).text
    assert "Folders of prompt files in mix : 2 folders, 6 prompts." in text
    assert "coins/ tuned 3 2 of 3" in text


def test_many_runs_have_the_number_of_prompts_beside_their_medians(tmp_path):
    aliases = [f"mix/{folder}/{i}.json" for folder in ("coins", "dice") for i in range(2)]
    for name in ("one", "three", "two"):
        run_with(
            tmp_path / name,
            {alias: prompt("ab", request=alias) for alias in aliases},
            {"lora": {alias: {"a": 1, "b": 1} for alias in aliases}},
        )
    chart = content(evaluate([tmp_path])).folder_chart
    assert [head.name for head in chart.heads] == ["prompts", "TVD", "TVD", "TVD"]
    assert {row.label: row.figures[0] for row in chart.rows} == {"all prompts": "4", "coins/": "2", "dice/": "2"}


def test_targets_are_in_the_order_of_the_terminal(tmp_path):
    targets = ["{3}", "{1}", "{2}"]
    run_with(tmp_path / "run", {"p.json": prompt(targets, [1, 2, 7])}, {"lora": {"p.json": {"{3}": 10, "{1}": 45, "{2}": 45}}})
    found = evaluate([tmp_path])
    for sort in (None, "weight", "residual", "target"):
        (section,) = sections(found, sort)
        ours, folded = shown_cells(found.rows[0].cells, Showing(sort=sort))
        assert [targets[i] for i in section.shown] == [cell.target for cell in ours]
        assert folded == []
        places = [html_report(found, sort).index(f'<bdi>{target}</bdi></span><svg class="plot"') for target in targets]
        assert [targets[i] for i in section.shown] == sorted(targets, key=lambda target: places[targets.index(target)])
    assert sections(found, "weight")[0].shown != sections(found)[0].shown


def test_the_overview_says_so_when_a_prompt_fails_within_the_range_of_noise(tmp_path):
    even = {"a": 48, "b": 48}
    four = {f"{name}.json": prompt("ab") for name in "pqrs"}
    run_with(tmp_path / "run", four, {"lora": dict.fromkeys(four, even) | {"p.json": even | {"c": 4}}})
    found = evaluate([tmp_path])
    assert found.rows[0].verdict.startswith("undecided, off target 4 %, true TVD between")  # 4 of 100 off target
    assert "can lie in the grey range" in of_prompts([(section, None) for section in sections(found)]).chart.reading
    assert "can lie in the grey range and still fail" in report_of(tmp_path).text


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
        return page

    yield open_page
    for page in pages:
        page.close()
    assert wrong == []


def unfold(page):
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")


def test_every_chart_is_drawn_and_described(opened):
    page = opened()
    unfold(page)
    charts = page.query_selector_all(".chart")
    assert len(charts) >= 8
    for chart in charts:
        marks = chart.query_selector_all("svg rect, svg use, svg path.curve")
        assert [mark for mark in marks if mark.bounding_box()["width"] > 1]
    for described in page.query_selector_all(".chart [role=img]"):
        assert re.search(r"\d", described.get_attribute("aria-label"))


def test_targets_that_look_like_scripts_are_labels(opened):
    page = opened()
    assert page.locator("#p2 .distribution .label", has_text="<script>alert(1)</script>").count() == 1
    titles = page.locator("#p2 .distribution title").all_text_contents()
    assert "tuned: 25.0\u202f% of valid answers, 50 where 50.0 are expected" in titles


def test_clicking_a_header_sorts_numbers_as_numbers(opened):
    page = opened()
    unfold(page)
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
    places = (("body", "backgroundColor"), (".legend", "color"), (".chart rect.weight", "fill"), (".chart use", "fill"))
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours.append([page.locator(place).first.evaluate("(e, key) => getComputedStyle(e)[key]", key) for place, key in places])
    assert all(light != dark for light, dark in zip(*colours, strict=True))
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator("html").evaluate("e => getComputedStyle(e).getPropertyValue('--paper')") == "#fdfdfb"


CLIPPED = """() => [...document.querySelectorAll("main *")].filter(e => {
    if (e.closest("svg") || e.closest(".scroll") || !e.clientWidth) return false;
    const wide = [...e.querySelectorAll(".scroll")].map(table => table.getBoundingClientRect().right);  // may use the whole window
    if (wide.some(right => right > e.getBoundingClientRect().right && right <= innerWidth)) return false;
    return e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== "inline";
}).map(e => `${e.tagName}.${e.className}: ${e.scrollWidth} > ${e.clientWidth}: ${e.textContent.slice(0, 60)}`)"""

NO_CUE = """() => [...document.querySelectorAll(".scroll")].filter(e => e.scrollWidth > e.clientWidth + 1).filter(e => {
    const look = getComputedStyle(e);
    return look.overflowX !== "auto" || !/scroll/.test(look.backgroundAttachment) || !/gradient/.test(look.backgroundImage);
}).length"""

OUTSIDE = """() => [...document.querySelectorAll(".chart .ticks span, .chart .y, .chart .label, .chart .values span, .chart .ends span, .chart text")]
    .filter(e => e.getBoundingClientRect().width > 0).filter(e => {
    const own = e.getBoundingClientRect(), all = e.closest(".chart").getBoundingClientRect();
    return own.left < all.left - 1 || own.right > all.right + 1 || own.top < all.top - 1 || own.bottom > all.bottom + 1;
}).map(e => `${e.className.baseVal ?? e.className} ${e.textContent}`)"""


@pytest.mark.parametrize("width", [390, 320, 1280])
def test_nothing_is_clipped_and_labels_are_within_their_chart(opened, width):
    page = opened(viewport={"width": width, "height": 800})
    unfold(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CLIPPED) == []
    assert page.evaluate(OUTSIDE) == []
    assert page.evaluate(NO_CUE) == 0


def test_the_checks_for_clipped_blocks_can_fail(opened):
    page = opened(viewport={"width": 390, "height": 800})
    unfold(page)
    assert page.evaluate("[...document.querySelectorAll('.scroll')].some(e => e.scrollWidth > e.clientWidth)"), "cues are tested"
    page.add_style_tag(
        content=".scroll { background: none !important; } .ticks span { margin-left: -60px; } h1 { white-space: nowrap; width: 50px; }"
    )
    assert page.evaluate(NO_CUE) > 0
    assert page.evaluate(OUTSIDE)
    assert any(entry.startswith("H1") for entry in page.evaluate(CLIPPED))


ROWS, LINES = ".chart:not(:has(.lines)) .plot", ".chart:has(.lines) .plot"


def edges(page, *plots):
    """Left and right edges of these plots of all prompts."""
    found = page.evaluate(
        """plots => [...document.querySelectorAll(".prompt")].flatMap(part => [...part.querySelectorAll(plots)])
        .map(e => e.getBoundingClientRect()).filter(box => box.width).map(box => [Math.round(box.left), Math.round(box.right)].join())""",
        ", ".join(plots),
    )
    assert len(found) > 1
    return set(found)


def test_all_charts_have_the_same_left_and_right_edges(opened):
    page = opened(viewport={"width": 1280, "height": 800})
    unfold(page)
    assert len(edges(page, ROWS, LINES)) == 1
    assert page.locator("#p1 .chart").count() >= 2
    page.add_style_tag(content="#p1 .lines { margin-left: 3px; }")
    assert len(edges(page, ROWS, LINES)) == 2, "this test can fail"


def test_on_a_phone_line_charts_have_room_for_the_labels_of_their_axis(opened):
    page = opened(viewport={"width": 390, "height": 800})
    unfold(page)
    assert len(edges(page, ROWS)) == len(edges(page, LINES)) == 1
    beside = """() => [...document.querySelectorAll(".lines .y")].map(e => e.parentElement.getBoundingClientRect().left - e.getBoundingClientRect().right)"""
    assert min(page.evaluate(beside)) >= 0
    page.add_style_tag(content=".lines .y { right: auto; left: 0; }")
    assert min(page.evaluate(beside)) < 0, "this test can fail"


def test_labels_of_44_characters_take_one_line_where_there_is_room(browser, tmp_path):
    long = "very dissatisfied, and would not come again!"
    assert len(long) == 44
    run_with(tmp_path / "run", {"p.json": prompt([long, "b"])}, {"lora": {"p.json": {long: 5, "b": 5}}})
    (tmp_path / "r.html").write_text(html_report(evaluate([tmp_path])), encoding="utf-8")
    heights = {}
    for width in (1280, 390):
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.set_default_timeout(1000 * HANG)
        page.goto((tmp_path / "r.html").as_uri())
        labels = page.locator(".distribution .body .label")
        assert labels.all_inner_texts()[:2] == [long, "b"]
        heights[width] = [labels.nth(place).bounding_box()["height"] for place in (0, 1)]
        assert page.evaluate(CLIPPED) == []
        page.close()
    assert heights[1280][0] == heights[1280][1], "one line"
    assert heights[390][0] == heights[390][1], "one line, above its bar"


LEAD = "In the last twelve months the quality of the service that I received from my local council has"


def long_targets(folder, **modes):
    """Ten long options that differ only in their last words; with shares of 8 and 12 % none differs alone, but all do together."""
    options = [
        f"{{{LEAD} {some}}}" for some in ("improved", "got worse", "stayed the same", *(f"changed in way {i}" for i in range(7)))
    ]
    answers = {
        mode: {"q.json": dict(zip(options, counts, strict=False))} for mode, counts in (modes | {"lora": [40, 60] * 5}).items()
    }
    return options, run_with(folder / "run", {"q.json": prompt(options)}, answers).path


@pytest.mark.parametrize("width", [1280, 390])
def test_long_targets_are_whole_above_their_bars(browser, tmp_path, width):
    options, run = long_targets(tmp_path, untuned=[20])
    (tmp_path / "r.html").write_text(html_report(evaluate([run])), encoding="utf-8")
    page, wrong = browser.new_page(viewport={"width": width, "height": 800}), []
    page.set_default_timeout(1000 * HANG)
    page.on("console", lambda said: wrong.append(said.text))
    page.goto((tmp_path / "r.html").as_uri())
    rows = page.locator(".distribution .body .row")
    assert rows.locator(".label").all_inner_texts() == options
    for place in range(len(options)):
        label, plot, values = (rows.nth(place).locator(part).bounding_box() for part in (".label", ".plot", ".values"))
        assert label["y"] + label["height"] <= plot["y"] + 1, "above"
        assert label["height"] < 60, "at most three lines"
        assert values["x"] + values["width"] <= width
    unfold(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CLIPPED) == []
    assert page.evaluate(OUTSIDE) == []
    assert len(edges(page, ROWS)) == 1
    assert wrong == []
    page.close()


def test_on_a_phone_labels_beside_which_figures_have_no_room_have_a_line_of_their_own(browser, tmp_path):
    answers = {mode: {"p.json": {"a": 30, "strongly disagree with it": 30}} for mode in ("untuned", "lora")}
    (tmp_path / "r.html").write_text(page_of(tmp_path, answers, ("a", "strongly disagree with it")), encoding="utf-8")
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.set_default_timeout(1000 * HANG)
    page.goto((tmp_path / "r.html").as_uri())
    row = page.locator(".distribution .body .row").nth(1)
    label, values, plot = (row.locator(part).bounding_box() for part in (".label", ".values", ".plot"))
    assert label["height"] < 24, "one line"
    assert label["y"] + label["height"] <= values["y"] + 1
    assert values["y"] + values["height"] <= plot["y"] + 1
    page.close()


def test_cut_names_can_be_told_apart_without_numbers(tmp_path):
    options, run = long_targets(tmp_path)
    (section,) = sections(evaluate([run]))
    assert section.labels[:2] == [
        "…eceived from my local council has improved}", "…ceived from my local council has got worse}",
    ]  # fmt: skip
    assert section.texts == options
    assert all(len(label) <= 44 for label in section.labels)
    assert " #2" not in html_report(evaluate([run]))


def test_a_sentence_says_that_all_targets_together_differ_if_none_does_alone(tmp_path):
    _, run = long_targets(tmp_path, untuned=[60, 40] * 5)
    found = evaluate([run])
    assert [cell.differs for cell in found.rows[0].cells] == [False] * 10
    sentence = "No single target stands out. All targets together differ from the weights, p = 0.0009."
    chart = of_targets(sections(found)[0])
    assert chart.note.replace("\u202f", " ") == sentence
    text = Parsed(html_report(found)).text.replace("\u202f", " ")
    assert text.count(sentence) == 1
    assert text.index(sentence) < text.index("test of fit, p") < text.index("Weights and shares"), "beside the verdict"
    assert "test of fit, p 0.0009 below 0.05: does not fit" in text
    follows = evaluate([run_with(tmp_path / "fits", {"p.json": prompt("ab")}, {"lora": {"p.json": {"a": 50, "b": 50}}}).path])
    assert of_targets(sections(follows)[0]).note == ""


def test_the_p_value_is_below_the_verdict_beside_an_exact_kl(tmp_path):
    run = run_with(
        tmp_path / "run", {"p.json": prompt("ab")}, {"lora": {"p.json": {"a": 60, "b": 40}}}, {"exact_kl": {"p.json": 0.01}}
    )
    assert re.search("test of fit, p 0.05\\d fits unless below 0.05 exact KL 0.0100", report_of(run.path).text)


def test_the_top_has_the_model_its_iterations_and_the_days(tmp_path):
    manifest = {"model": "smollm2", "iterations": 40, "time": "2026-11-30T23:03:16+00:00", "adapter_sha256": "09ae144729"}
    run = run_with(tmp_path / "survey", {"p.json": prompt("ab")}, {"lora": {"p.json": {"a": 60, "b": 40}}}, manifest)
    run.config.write_text("model: smollm2\nalg_config: {n_iters: 16}\n")
    write_json(run.path / "gen.lora.meta.json", {"mode": "lora", "time": "2026-12-01T09:00:00+00:00"})
    page = html_report(evaluate([run.path]))
    line = "Base model smollm2, adapter survey (SHA-256 09ae1447), trained for 40 iterations until 2026-11-30, sampled 2026-12-01"
    assert line in page.partition("</header>")[0]
    assert f"<dt>Model</dt><dd><bdi>{line}</bdi></dd>" in page
    assert "<summary>config.yaml (40 iterations trained)</summary>" in page


def test_answers_to_different_prompts_are_not_counted_for_all(tmp_path):
    for name, n in (("people", 500), ("places", 200)):
        run_with(
            tmp_path / name, {f"{name}.json": prompt("ab", request=name)}, {"lora": {f"{name}.json": {"a": n // 2, "b": n // 2}}}
        )
    text = report_of(tmp_path).text
    assert text.count("500 answers of people (tuned) to 1 prompt and 200 of places (tuned) to 1 prompt") == 2
    assert "per prompt" not in text


def test_a_difference_says_how_many_answers_it_compares(tmp_path):
    even = {"p.json": {"a": 250, "b": 250}}
    page = page_of(tmp_path, {"untuned": {"p.json": {"a": 150, "b": 50}}, "lora": even})
    assert '<span class="sub">500 answers thinned to 200</span>' in page
    assert "thinned" not in page_of(tmp_path / "same", {"untuned": {"p.json": {"a": 350, "b": 150}}, "lora": even})


def test_what_a_perfect_sampler_is_stands_once(tmp_path):
    four_ages(tmp_path / "ages")
    run = records_of(tmp_path, (300, 200, 200, 300))
    sentence = "even a perfect sampler, which draws independently from the weights, does not match its target exactly."
    for page in (report_of(tmp_path / "ages"), report_of(run)):
        assert page.text.count(sentence) == page.text.count("draws independently") == 1


def test_a_base_model_that_all_runs_share_is_named_once(tmp_path):
    for name, model in (("one", "m"), ("two", "m"), ("three", "n")):
        run_with(
            tmp_path / name, {"p.json": prompt("ab")}, {"lora": {"p.json": {"a": 60, "b": 40}}}, {"model": model, "iterations": 4}
        )
    top = Parsed(html_report(evaluate([tmp_path / "one", tmp_path / "two"])).partition("</header>")[0]).text
    assert "Base model m Adapter one, trained for 4 iterations Adapter two, trained for 4 iterations" in top
    top = Parsed(html_report(evaluate([tmp_path / "one", tmp_path / "three"])).partition("</header>")[0]).text
    assert "Base model m, adapter one, trained for 4 iterations Base model n, adapter three, trained for 4 iterations" in top


def test_a_difference_of_one_prompt_has_no_chart_and_one_of_the_same_answers_is_left_out(tmp_path):
    two = {"n.json": prompt("ab"), "w.json": prompt("ab", request="Say another.")}
    names = ["one (tuned) minus one (untuned)", "two (tuned) minus two (untuned)", "two (tuned) minus one (tuned)"]
    for folder, prompts in (("both", two), ("single", {"n.json": two["n.json"]})):
        for name, share in (("one", 50), ("two", 60)):
            answers = {
                "untuned": {key: {"a": 90, "b": 10} for key in prompts},
                "lora": {key: {"a": share, "b": 100 - share} for key in prompts},
            }
            run_with(tmp_path / folder / name, prompts, answers)
    changes = content(evaluate([tmp_path / "both"])).changes
    assert {each.pair.name for each in changes} == {each.chart.title for each in changes} == {*names}
    found = evaluate([tmp_path / "single"])
    assert [each.chart for each in content(found).changes] == [None] * 3
    page = html_report(found)
    assert all(f"<h3>{name}</h3>" in page for name in names)


def test_all_figures_have_the_whole_verdict_and_say_what_raises_the_entropy():
    cut, asked = Answers({f"off {i}": 1 for i in range(40)}), Prompt(alias="p.json", request="Say one.", targets=("a", "b"))
    for i in range(60):
        cut.add(f"{{a{i}", 1, unfinished=True)
    given = (
        SampleSet("run", "untuned", asked, cut),
        SampleSet("run", "lora", asked, Answers({"a": 50} | {f"off {i}": 1 for i in range(50)})),
    )
    page = html_report(evaluate([], Question(given=given)))
    tuned, untuned = (
        Parsed(part).text
        for part in re.findall("<tr.*?</tr>", page[page.index('<table class="summary">') :].partition("</table>")[0], re.DOTALL)[1:]
    )
    assert "off target 100 % (unfinished 60 %)" in untuned.replace("\u202f", " ")
    assert "off-target texts raise it" not in untuned
    assert re.search("unfinished 60.0 % – – 0 of 2", untuned.replace("\u202f", " ")), "no entropy without a valid answer"
    assert tuned.count("off-target texts raise it") == 2


def test_marks_that_do_not_occur_are_not_explained(tmp_path):
    fits = page_of(tmp_path / "fits", {"untuned": {"p.json": {"a": 52, "b": 48}}, "lora": {"p.json": {"a": 50, "b": 50}}})
    differs = page_of(tmp_path / "differs", {"untuned": {"p.json": {"a": 90, "b": 10}}, "lora": {"p.json": {"a": 50, "b": 50}}})
    for words in ("*: differs from the weight", "!: the interval excludes zero."):
        assert (words in fits, words in differs) == (False, True)


def test_the_untuned_model_has_the_sign_of_its_verdict_in_the_head_of_the_chart(tmp_path):
    for name, counts in (("none", {"junk": 100}), ("some", {"a": 100})):
        page = page_of(tmp_path / name, {"untuned": {"p.json": counts}, "lora": {"p.json": {"a": 60, "b": 40}}})
        head = page[page.index('<div class="row head">') :].partition("</div>")[0]
        assert re.findall('href="#m-([a-z]+)"', head) == ["circle", "square"]
        assert "key thin" not in head
        legend = page[page.index('<p class="legend">') :].partition("</p>")[0]
        assert ('href="#m-square"' in legend, "key thin" in legend) == ((name == "some"),) * 2, (
            "the line is explained with its sign"
        )


def test_equal_untuned_models_are_once_in_the_list_of_samplers(tmp_path):
    for name, a in (("one", 60), ("two", 10)):
        samples = {"lora": {"p.json": {"a": a, "b": 40}, "q.json": {"a": 9}}, "untuned": {"p.json": {"x": 9}, "q.json": {"x": 9}}}
        run_with(tmp_path / name, {"p.json": prompt("ab"), "q.json": prompt("ac", request="Say a or c.")}, samples)
    page = html_report(evaluate([tmp_path / "one", tmp_path / "two"]))
    listed = Parsed(page.partition('<ul class="scores">')[2].partition("</ul>")[0]).text
    assert listed.count("(tuned)") == 2
    assert "one (untuned) and two (untuned) : 0 of 2 follow their target 2 do not" in listed


def test_the_tvd_of_the_untuned_model_is_beside_its_verdict_and_in_the_overview(tmp_path):
    four_ages(tmp_path / "run")
    page = html_report(evaluate([tmp_path]))  # 270 and 30 of 500 answers where 200 and 100 are wanted; 200 are off target
    assert page.count('<p class="baselines untuned">untuned: TVD 0.540</p>') == 4
    assert page.count('<span class="after">TVD 0.540</span>') == 4


def test_fields_without_any_value_have_one_line(tmp_path):
    run = records_of(tmp_path, (300, 200, 200, 300))
    write_json(RunDir(run).samples("untuned"), {"r.json": {"no record": 100}})
    page = html_report(evaluate([run]))
    table, text = page[page.index('<table class="stacked">') :].partition("</table>")[0], Parsed(page).text
    assert table.count("<tr>") == 1 + 2 + 1, "the head, a line for each field of the tuned model, and one of the untuned"
    assert "untuned all 2 fields ✗ 100 % other or no value" in text.replace("\u202f", " ")


def test_every_pair_that_differs_is_marked(tmp_path):
    values = [f"{{{a}, {b}, {c}}}" for a in "AB" for b in "xy" for c in "12"]
    asked = prompt(values, [8 if value in ("{A, x, 1}", "{B, y, 2}") else 1 for value in values]) | {
        "template": "{{{letter}, {sign}, {number}}}"
    }
    run = run_with(tmp_path / "run", {"r.json": asked}, {"lora": {"r.json": dict.fromkeys(values, 60)}})
    (row,) = evaluate([run.path]).rows
    assert [pair.joint_p_value for pair in row.records.pairs] == [0.001] * 3
    text = report_of(run.path).text
    assert [f"{pair} ✗" in text for pair in ("letter, sign", "letter, number", "sign, number")] == [True] * 3
    assert "A pair differs (✗) if p < 0.025." in text


def test_pairs_that_fit_are_not_marked(tmp_path):
    """Only letter and sign belong together in the weights; in the answers nothing does."""
    values = [f"{{{a}, {b}, {c}}}" for a in "AB" for b in "xy" for c in "12"]
    weights = [4 if value.startswith(("{A, x", "{B, y")) else 1 for value in values]
    asked = prompt(values, weights) | {"template": "{{{letter}, {sign}, {number}}}"}
    (row,) = evaluate([run_with(tmp_path / "run", {"r.json": asked}, {"lora": {"r.json": dict.fromkeys(values, 60)}}).path]).rows
    found = row.records
    assert [pair.second for pair in found.rejected_pairs] == ["sign"]
    assert found.rejected_pairs == [found.wrong_pair]
    assert found.pairs[0].joint_p_value == found.pairs_p_value == 0.001
    assert all(0.025 < pair.p_value <= pair.joint_p_value for pair in found.pairs[1:])


@pytest.mark.parametrize(("low", "high"), [(8, 12), (9.99, 10.01), (10, 10.1), (1, 10), (1e-6, 12), (1e-6, 1.5e308)])
def test_a_logarithmic_axis_has_at_least_two_ticks(low, high):
    assert len(Scale(low, high, logarithmic=True).rounded().ticks()) >= 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_charts_and_verdicts_are_visible_without_scripts(browser, report_file, scheme):
    context = browser.new_context(java_script_enabled=False, color_scheme=scheme, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(1000 * HANG)
    page.goto(report_file.as_uri())
    assert page.locator("text=Sorting and filtering tables needs JavaScript").is_visible()
    bar = page.locator("#p1 .distribution rect.weight").first
    assert bar.is_visible()
    assert bar.bounding_box()["width"] > 100
    assert page.locator("#p1 .verdicts .words").first.is_visible()
    paper, weight = (DARK if scheme == "dark" else LIGHT)["paper"], (DARK if scheme == "dark" else LIGHT)["target"]
    shot = pixels(page.locator("#p1 .distribution").screenshot())
    assert {paper, weight} <= shot, "bars of the target's colour on paper"
    page.locator("summary", has_text="Numbers of every target").first.click()
    assert page.locator("#p1 table tbody tr").first.is_visible()
    context.close()


def pixels(picture):
    """The colours of a screenshot."""
    from PIL import Image

    with Image.open(io.BytesIO(picture)) as image:
        return {f"#{r:02x}{g:02x}{b:02x}" for _, (r, g, b) in image.convert("RGB").getcolors(1 << 24)}


def test_print_has_charts_and_no_folded_parts(opened):
    page = opened()
    page.emulate_media(media="print")
    assert page.locator("#p1 .distribution rect.weight").first.is_visible()
    assert not page.locator("summary").first.is_visible()


def test_the_untuned_model_can_be_hidden_without_scripts(browser, report_file):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.set_default_timeout(1000 * HANG)
    page.goto(report_file.as_uri())
    display = "e => getComputedStyle(e).display"
    lines, legend = page.locator("#p1 .distribution g.untuned").first, page.locator("#p1 .legend .untuned")
    assert (lines.evaluate(display), legend.is_visible()) == ("inline", True)
    page.locator("#show-untuned").uncheck()
    assert (lines.evaluate(display), legend.is_visible()) == ("none", False)
    context.close()


def test_on_a_phone_the_sign_of_a_sampler_is_on_the_line_of_its_name(opened):
    page = opened()
    page.set_viewport_size({"width": 390, "height": 800})
    head = page.locator("#p1 .distribution .head .untuned").first
    sign, name = head.locator(".swatch").bounding_box(), head.locator("bdi").bounding_box()
    assert name["height"] < 24, "one line"
    assert name["y"] < sign["y"] < name["y"] + name["height"]
    assert sign["x"] + sign["width"] <= name["x"]


def test_headings_do_not_skip_a_level(opened):
    page = opened()
    unfold(page)
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(e => +e.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_a_link_to_a_folded_part_opens_it_without_scripts(browser, report_file):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.set_default_timeout(1000 * HANG)
    page.goto(report_file.as_uri())
    folded = page.locator("details:has(> #glossary)")
    assert not folded.evaluate("e => e.open")
    page.locator("a", has_text="how to read this").click()
    assert folded.evaluate("e => e.open")
    context.close()


def test_a_filter_shows_the_prompts_with_a_text(browser, tmp_path):
    prompts = {f"mix/{i:02}.json": prompt("ab", request=f"Question {i}") for i in range(30)}
    run_with(tmp_path / "run", prompts, {"lora": {key: {"a": 50, "b": 50} for key in prompts}})
    (tmp_path / "r.html").write_text(html_report(evaluate([tmp_path])), encoding="utf-8")
    page = browser.new_page()
    page.set_default_timeout(1000 * HANG)
    page.goto((tmp_path / "r.html").as_uri())
    detailed = page.locator(".prompt h2").all_text_contents()
    assert len(detailed) == 10
    page.locator("#filter").fill("question 1")  # of the request, in any case
    ones = ["01", *(f"{i}" for i in range(10, 20))]
    assert page.locator("#all tbody tr:visible th").all_text_contents() == ones, "the table of all prompts opens"
    assert page.locator("output").inner_text() == "11 of 30 prompts"
    for names in (".prompt:visible h2", ".overview li:visible a", ".summary tr:not([hidden]) a"):
        assert page.locator(names).all_text_contents() == [name for name in detailed if name in ones]
    page.locator("#filter").fill("")
    assert page.locator("#all tbody tr:visible").count() == 30
    assert page.locator(".prompt:visible").count() == 10
    page.close()


def test_few_prompts_have_no_filter(report_file):
    assert 'id="filter"' not in report_file.read_text(encoding="utf-8")


RECORDS = ["{A, x}", "{A, y}", "{B, x}", "{B, y}"]


def records_of(folder, counts, **modes):
    """Records of two fields whose weights have a Cramér's V of .6."""
    asked = prompt(RECORDS, [0.4, 0.1, 0.1, 0.4]) | {"template": "{{{letter}, {sign}}}"}
    answers = {mode: {"r.json": dict(zip(RECORDS, some, strict=True))} for mode, some in (modes | {"lora": counts}).items()}
    return run_with(folder / "run", {"r.json": asked}, answers).path


def test_a_wrong_association_has_its_figures_in_the_verdict_and_in_the_open_table(tmp_path):
    page = html_report(evaluate([records_of(tmp_path, (300, 200, 200, 300))]))  # V = .6 - .4 = .2
    found = Parsed(page)
    (row,) = evaluate([tmp_path / "run"]).rows
    (pair,) = row.records.pairs
    assert (round(pair.sampled, 3), round(pair.target, 3), round(pair.perfect, 2)) == (0.2, 0.6, 0.6)
    behind = f"Cramér's V 0.200, perfect sampler {pair.perfect:.3f} (p ≤ 0.001)"
    assert f"the association of 'letter' and 'sign' is too weak: {behind}" in found.text
    assert f"letter, sign ✗ Cramér's V 0.200 {pair.perfect:.3f} ≤ 0.001 0.600" in found.text
    assert "<details open><summary>Pairs of fields</summary>" in page


def test_wrong_fields_have_the_figures_of_the_worst_in_the_verdict(tmp_path):
    page = html_report(evaluate([records_of(tmp_path, (560, 140, 60, 240))]))  # letters 70 % and 30 %, signs 62 % and 38 %
    (row,) = evaluate([tmp_path / "run"]).rows
    floor = row.records.fields[0].tvd_floor
    assert f"TVD of 'letter' 0.200, perfect sampler {floor:.3f} (" in Parsed(page).text
    assert "<details><summary>Pairs of fields</summary>" in page


def test_a_wrong_association_is_named_beside_wrong_fields(tmp_path):
    page = html_report(evaluate([records_of(tmp_path, (420, 280, 180, 120))]))  # letters 70 %, signs 60 %, independent
    (row,) = evaluate([tmp_path / "run"]).rows
    assert [field.name for field in row.records.wrong_fields] == ["letter", "sign"]
    expected = row.records.pairs[0].given_fields
    assert (
        f"; 'letter' and 'sign' are almost independent, but should not be: Cramér's V 0.000, perfect sampler with these shares of fields {expected:.3f} (p ≤ 0.001)"
        in Parsed(page).text
    )
    assert "letter, sign ✗" in Parsed(page).text
    assert "<details open><summary>Pairs of fields</summary>" in page


def test_an_association_that_wrong_fields_explain_is_not_named(tmp_path):
    """Each letter has its sign in 80 % of the records, as in the weights, so V is 0.566 only because of the letters' shares."""
    page = html_report(evaluate([records_of(tmp_path, (5600, 1400, 600, 2400))]))
    (row,) = evaluate([tmp_path / "run"]).rows
    (pair,) = row.records.pairs
    assert (round(pair.sampled, 3), round(0.6 + pair.by_fields, 3)) == (0.566, 0.566)
    assert row.records.pairs_p_value == 0.001
    assert row.records.wrong_pair is None
    assert row.records.doubt.startswith("the fields 'letter' and 'sign' differ")
    assert "association" not in row.verdict
    assert "<details><summary>Pairs of fields</summary>" in page


def test_too_few_known_values_have_no_p_value(tmp_path):
    """Six of 500 answers have known values; 300 do on the other side."""
    asked = prompt(RECORDS, [0.4, 0.1, 0.1, 0.4]) | {"template": "{{{letter}, {sign}}}"}
    for name, known in (("few", (2, 1, 1, 2)), ("many", (120, 30, 30, 120))):
        counts = {**dict(zip(RECORDS, known, strict=True)), "no record": 500 - sum(known)}
        found = evaluate([run_with(tmp_path / name, {"r.json": asked}, {"lora": {"r.json": counts}}).path])
        page = html_report(found)
        cells = re.findall(r'data-name="p">([^<]*)<', page)
        (row,) = found.rows
        assert all(field.p_value > 0.05 for field in row.records.fields)
        assert [cell == "–" for cell in cells] == [name == "few"] * 3
        assert ("too few valid answers" in Parsed(page).text) == (name == "few")


def test_records_that_follow_their_target_have_their_pairs_folded(tmp_path):
    page = html_report(evaluate([records_of(tmp_path, (405, 104, 97, 394))]))
    assert "follows the target" in Parsed(page).text
    assert "<details><summary>Pairs of fields</summary>" in page


def test_the_range_of_noise_is_that_of_the_first_tuned_sampler(tmp_path):
    for name, answers in (("one", {"a": 300, "b": 200}), ("two", {"a": 30, "b": 20}), ("void", {"junk": 9})):
        run_with(tmp_path / name, {"p.json": prompt("ab")}, {"lora": {"p.json": answers}})
    (section,) = sections(evaluate([tmp_path / "void", tmp_path / "one", tmp_path / "two"]))
    chart = of_targets(section)
    assert "with 500 valid answers, as many as one (tuned) has, for each target alone" in chart.noise
    large, _ = chart.rows[0].marks
    assert large.filled
    assert not chart.rows[0].noise[0] <= large.at <= sum(chart.rows[0].noise)
    (section,) = sections(evaluate([tmp_path / "void", tmp_path / "one"]))
    assert "with 500 valid answers, for each target alone" in of_targets(section).noise


def test_a_legend_explains_filled_and_hollow_points_in_reports_and_pictures(tmp_path):
    answers = {"lora": {"p.json": {"a": 50, "b": 33, "c": 17}}}
    control = "false discoveries limited to 5 %"
    filled, hollow = (
        f"filled: differs from the weight (*; {control})",
        f"hollow: may be sampling noise (among 3 targets; {control})",
    )
    page = Parsed(page_of(tmp_path, answers, "abc"))
    assert f"tuned {filled} {hollow}" in page.text.replace("\u202f", " ")
    assert "perfect samplers with 100 valid answers, for each target alone" in page.text
    pictures = write_plots(evaluate([tmp_path / "run"]), tmp_path / "plots")
    (svg,) = [path.read_text(encoding="utf-8") for path in pictures if path.name == "p.distribution.svg"]
    assert f">{filled}</text>" in svg
    assert f">{hollow}</text>" in svg
    assert svg.count('<use class="hollow"') == 1
    without = page_of(tmp_path / "none", {"lora": {"p.json": {"junk": 10}}})
    assert "hollow:" not in Parsed(without).text
    fits = Parsed(page_of(tmp_path / "fits", {"lora": {"p.json": {"a": 50, "b": 50}}})).text
    assert ("filled:" in fits, "hollow:" in fits) == (False, True), "only of points that occur"


def test_untuned_models_with_the_same_answers_and_figures_are_one_sampler(tmp_path):
    for name, answers in (("one", {"a": 60, "junk": 40}), ("two", {"a": 60, "junk": 40}), ("three", {"a": 61, "junk": 39})):
        run_with(
            tmp_path / name, {"p.json": prompt("ab")}, {"untuned": {"p.json": answers}, "lora": {"p.json": {"a": 50, "b": 50}}}
        )
    found = evaluate([tmp_path / name for name in ("one", "two", "three")])
    (section,) = sections(found)
    names = ["one (tuned)", "two (tuned)", "three (tuned)", "one (untuned) and two (untuned)", "three (untuned)"]
    assert [sampler.label for sampler in section.samplers] == names
    assert [row.run for row in section.rows[-2:]] == [str(tmp_path / "one"), str(tmp_path / "three")]
    table = html_report(found).partition('<table class="summary">')[2].partition("</tbody>")[0]
    assert re.findall("<td><span class=.*?<bdi>(.*?)</bdi>", table) == names
    for name in ("four", "five"):
        shutil.copytree(tmp_path / "one", tmp_path / name)
    (section,) = sections(evaluate([tmp_path / name for name in ("one", "two", "four", "five")]))
    assert section.samplers[-1].label == "one (untuned) and 3 equal ones"


def test_wide_tables_use_the_width_of_the_window(browser, tmp_path):
    for name in ("transport-survey", "people", "dice"):
        answers = {"untuned": {"p.json": {"alpha": 290, "junk": 210}}, "lora": {"p.json": {"alpha": 300, "beta": 199, "junk": 1}}}
        run_with(tmp_path / name, {"p.json": prompt(["alpha", "beta"])}, answers, {"exact_kl": {"p.json": 0.0123}})
    (tmp_path / "report.html").write_text(html_report(evaluate([tmp_path])), encoding="utf-8")
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto((tmp_path / "report.html").as_uri())
    unfold(page)
    hidden, left, right, main = page.evaluate("""() => {
        const table = document.querySelector('.summary').parentElement, at = table.getBoundingClientRect()
        return [table.scrollWidth - table.clientWidth, at.left, at.right, document.documentElement.scrollWidth]
    }""")
    page.close()
    assert hidden == 0, "the last column is visible"
    assert left >= 0
    assert right <= main == 1280


def test_on_a_phone_figures_of_fields_and_targets_are_stacked(browser, tmp_path):
    run = records_of(tmp_path, (300, 200, 200, 290), untuned=(700, 100, 100, 50))
    (tmp_path / "r.html").write_text(html_report(evaluate([run])), encoding="utf-8")
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.set_default_timeout(1000 * HANG)
    page.goto((tmp_path / "r.html").as_uri())
    unfold(page)
    for table in (".stacked", ".numbers"):
        cells = [cell for cell in page.locator(f"{table} tbody :is(th, td)").all() if cell.is_visible()]
        assert len(cells) > 20
        boxes = [cell.bounding_box() for cell in cells]
        assert all(box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in boxes), "nothing to scroll to"
    assert page.locator(".stacked .phrase").first.bounding_box()["width"] > 300
    overflow = "some => some.filter(e => e.scrollWidth > e.clientWidth + 1).length"
    assert page.locator(".stacked tbody .num").evaluate_all(overflow) == 0, "no name runs into the next"
    heads = page.locator(".head .values > span:has(.swatch, .key):visible").all_inner_texts()
    assert {head.strip() for head in heads} == {"tuned", "untuned"}, "no column is headed only by a mark"
    first = page.locator(".numbers tbody tr").first
    tops = first.locator("td.of").evaluate_all("some => some.map(e => e.getBoundingClientRect().top)")
    assert tops[0] < tops[1], "a line for each sampler"
    heads = page.locator(".numbers thead th:visible").all_inner_texts()
    assert [head.strip() for head in heads] == ["target", "weight", "tuned", "untuned", "count", "expected", "of valid", "residual"]
    page.close()


def test_on_a_phone_names_of_samplers_break_between_words(browser, tmp_path):
    for name in ("results/dice", "answers"):
        run_with(tmp_path / name, {"p.json": prompt("ab")}, {"lora": {"p.json": {"a": 60, "b": 40}}})
    (tmp_path / "r.html").write_text(html_report(evaluate([tmp_path / "results", tmp_path / "answers"])), encoding="utf-8")
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.set_default_timeout(1000 * HANG)
    page.goto((tmp_path / "r.html").as_uri())
    lines = """some => some.map(e => { const found = new Map(), text = e.firstChild, range = document.createRange();
        for (let i = 0; i < text.length; i++) {
            range.setStart(text, i); range.setEnd(text, i + 1);
            const top = Math.round(range.getBoundingClientRect().top);
            found.set(top, (found.get(top) ?? "") + text.data[i]);
        }
        return [...found.values()].map(line => line.replace("\u200b", "").trim()); })"""
    names = page.locator(".distribution .head bdi.named")
    assert names.evaluate_all(lines) == [["results/", "dice (tuned)"], ["answers", "(tuned)"]]
    assert page.evaluate(CLIPPED) == []
    assert page.evaluate(OUTSIDE) == []
    page.close()


def test_many_prompts_show_their_charts_folded_and_nothing_is_clipped(browser, tmp_path):
    prompts = {
        f"mix/some-long-name-of-a-family-{i % 2}/number-{i:02}.json": prompt(
            "ab", request=f"Question {i} " + "with many words " * 9
        )
        for i in range(30)
    }
    samples = {"untuned": {key: {"a": 99, "c": 1} for key in prompts}, "lora": {key: {"a": 61, "b": 39} for key in prompts}}
    run_with(tmp_path / "a-long-name-of-a-run", prompts, samples)
    run_with(tmp_path / "another-long-name-of-a-run", prompts, samples)
    (tmp_path / "r.html").write_text(html_report(evaluate([tmp_path])), encoding="utf-8")
    for width in (390, 1280):
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.set_default_timeout(1000 * HANG)
        page.goto((tmp_path / "r.html").as_uri())
        assert not page.locator("#p1 .distribution").evaluate("e => e.checkVisibility()")
        assert page.locator("#p1 .verdicts .words").first.is_visible()
        unfold(page)
        assert page.locator("#p1 .distribution").evaluate("e => e.checkVisibility()")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CLIPPED) == []
        assert page.evaluate(OUTSIDE) == []
        assert page.evaluate(NO_CUE) == 0
        assert len(edges(page, ROWS)) == 1
        page.close()


def test_the_table_of_numbers_has_all_of_a_hundred_targets_and_the_chart_sums_up_the_others(tmp_path):
    targets = [str(i) for i in range(100)]
    text = Parsed(page_of(tmp_path, {"lora": {"p.json": {name: 10 + 90 * (name == "7") for name in targets}}}, targets)).text
    assert "Numbers of every target" in text
    assert "60 more targets are not shown (together weight 60.0 %, share 55.0 %)" in text.replace("\u202f", " ")
