"""Many prompts at a glance: the table of folders in every kind of report, the worst prompts, and reports that stay small."""

import io
import re
from dataclasses import replace

from rich.console import Console

from diffusecli.evaluation.groups import worst
from diffusecli.evaluation.sample_set import SampleSet
from diffusecli.files.writing import write_json
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.prompt import Prompt
from diffusecli.report.groups import worst_figures
from diffusecli.report.markdown import as_markdown
from diffusecli.report.summary import evaluation
from diffusecli.report.tables import prompts_overview, trained_table
from diffusecli.training.questions import Exact, Figures
from diffusecli.verbs.evaluate import Question, evaluate
from tests.evaluation.test_groups import mixture, number, shift  # noqa: F401 (a fixture)
from tests.verbs.test_evaluate import HALVES, rendered

FOUR = ("wordings/dice", "wordings/urns", "families/odds", "families/zipf")


def far_out(prompt, mode):
    """Prompt 7 of the dice is the worst of all."""
    return 0.09 if mode == "untuned" else 0.08 if prompt.request == "wordings/dice 7" else 0.02


def words(line):
    return line.replace(" %", "%").split()


def test_few_prompts_keep_their_rows_and_have_the_table_below(mixture):  # noqa: F811
    text = rendered(mixture(FOUR))
    lines = text[text.index("\nby folder") :].splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("wordings"))
    assert words(lines[at])[:5] == ["wordings", "tuned", "6", "0.025", "0.050"]
    assert words(lines[at + 1])[:4] == ["untuned", "6", "0.090", "0.090"]
    assert lines[at + 2].startswith("  dice")
    assert text.count("not sampled; exact TVD") == 24
    assert ["excess", "at 500"][1] in text


def test_many_folders_have_a_table_of_the_splits_before_that_of_all(mixture):  # noqa: F811
    few, many = (
        rendered(mixture(FOUR)),
        rendered(mixture(tuple(f"{split}/f{n}" for split in ("wordings", "families") for n in range(8)))),
    )
    assert ("by split" in few, "by folder" in few) == (False, True)
    first = many[many.index("by split") : many.index("by folder")]
    assert [line.split()[0] for line in first.splitlines()[4:] if line.strip() and not line.startswith(" ")] == [
        "families",
        "wordings",
    ]
    assert "f3" in many[many.index("by folder") :]


def test_many_prompts_are_a_table_and_the_worst_ten_by_name(mixture):  # noqa: F811
    text = rendered(mixture(FOUR, each=8, shift=far_out))
    lines = text.splitlines()
    assert "furthest from the target, by exact TVD: 10 of 32 prompts" in lines
    worst = [line for line in lines if re.match(r"(wordings|families)/\w+/\d+ ", line)]
    assert len(worst) == 10
    assert words(worst[0]) == ["wordings/dice/0007", "0.080", "0.1022", "100.0%"]
    assert "details of one prompt: --only wordings/dice/0007; of these 10: --html report.html" in " ".join(text.split())
    assert "not sampled" not in text
    assert len(lines) < 50
    assert lines.index("by folder") > lines.index("furthest from the target, by exact TVD: 10 of 32 prompts")


def test_one_of_many_is_seen_in_detail_with_only(mixture):  # noqa: F811
    text = rendered(mixture(FOUR, each=8, shift=far_out, only=("wordings/dice/0007",)))
    assert "not sampled; exact TVD 0.080" in text
    assert "by folder" not in text


def test_markdown_has_the_same_table(mixture):  # noqa: F811
    text = as_markdown(mixture(FOUR, each=8, shift=far_out))
    assert "| folder | sampler | prompts | TVD median | TVD 90 % | excess at 500 | KL median | on target |" in text
    assert "| **wordings** | tuned | 16 | 0.020 | 0.020 |" in text
    assert "| wordings/dice | tuned | 8 | 0.020 |" in text
    assert "| wordings/dice/0007 | tuned | 0.080 | 0.1022 | 100.0 % |" in text
    assert text.count("| tuned |") == 10 + 6
    assert "Sampled with" not in text


def test_the_html_report_of_many_has_the_table_the_worst_and_all_in_brief(mixture):  # noqa: F811
    from diffusecli.report.html import html_report
    from tests.report.test_html import Parsed

    found = Parsed(html_report(mixture(FOUR, each=8, shift=far_out)))
    assert "By folder" in found.text
    assert "untuned 16 0.090 0.090" in found.text
    assert "excess at 500, median" in found.text
    assert "Half of the 32 prompts have an exact TVD of at most 0.020" in found.text
    assert "All 32 prompts" in found.text
    assert found.text.count("wordings/dice/0007") > found.text.count("wordings/dice/0006")
    assert sum(attributes.get("class") == "prompt" for tag, attributes in found.tags if tag == "section") == 10


def test_the_html_report_of_few_has_the_table_beside_every_prompt(mixture):  # noqa: F811
    from diffusecli.report.html import html_report
    from tests.report.test_html import Parsed

    found = Parsed(html_report(mixture(FOUR)))
    assert "By folder" in found.text
    assert sum(attributes.get("class") == "prompt" for tag, attributes in found.tags if tag == "section") == 12
    assert "All 12 prompts" not in found.text


def test_a_thousand_prompts_make_small_reports(mixture, tmp_path):  # noqa: F811
    from diffusecli.report.html import html_report

    write_json(tmp_path / "run" / "run.json", {"exact_kl": {f"mix/train/{i}.json": 0.1 for i in range(3000)}})
    found = mixture(FOUR, each=250, shift=lambda *_: 0.02)
    page = html_report(found)
    assert len(page.encode()) < 3_000_000
    assert "2960 more" in page
    assert page.count("mix/train/") == 40
    assert len(as_markdown(found)) < 10_000
    console = Console(width=80, file=io.StringIO())
    console.print(evaluation(found, verbose=True))
    assert len(console.file.getvalue().splitlines()) < 60


def test_after_training_many_prompts_are_summed_up_by_folder():
    def exact(*some):
        prompts = tuple(Prompt(request=alias, targets=("a",), alias=alias) for alias, *_ in some)
        return Exact(prompts, tuple((kl, on) for _, kl, on in some), tuple((Figures(kl, on, kl / 2),) for _, kl, on in some))

    trained = exact(("m/train/dice/1.json", 0.1, 0.9), ("m/train/dice/2.json", 0.3, 1.0), ("m/train/urns/1.json", 0.2, 1.0))
    tested = exact(("m/held/dice/1.json", 0.5, 0.5), ("m/train/dice/1.json#held-out", 0.4, 0.8))
    asked = trained.prompts[2].model_copy(update={"alias": "m/train/urns/1.json#contexts"})  # with the digest of what is trained
    tested = replace(
        tested, prompts=(*tested.prompts, asked), figures=(*tested.figures, (0.6, 0.7)), wordings=(*tested.wordings, ())
    )
    console = Console(width=80, file=io.StringIO())
    console.print(trained_table(trained, tested, {prompt.digest for prompt in trained.prompts}))
    lines = [words(line) for line in console.file.getvalue().splitlines()]
    assert ["train", "trained", "on", "3", "0.2000", "0.3000", "0.100", "0.150", "100.0%"] in lines
    assert ["dice", "trained", "on", "2", "0.2000", "0.3000", "0.100", "0.150", "95.0%"] in lines
    assert ["not", "trained", "1", "0.4000", "0.4000", "0.200", "0.200", "80.0%"] in [line[-8:] for line in lines]
    assert ["urns", "trained", "on", "1", "0.2000", "0.2000", "0.100", "0.100", "100.0%"] in lines
    assert ["urns", "not", "trained", "1", "0.6000", "0.6000", "-", "-", "70.0%"] in lines
    assert ["held/dice", "not", "trained", "1", "0.5000", "0.5000", "0.250", "0.250", "50.0%"] in lines
    console = Console(width=80, file=io.StringIO())
    console.print(trained_table(trained, tested, {prompt.digest for prompt in (*trained.prompts, tested.prompts[0])}))
    lines = [words(line) for line in console.file.getvalue().splitlines()]
    assert ["held/dice", "trained", "on", "1", "0.5000", "0.5000", "0.250", "0.250", "50.0%"] in lines, "a copy beyond the sample"


def sampled_run(folder, most):
    """A run with samples of both modes, of 30 prompts in two folders.

    Of 60 answers to dice i, 20 + i are a: the TVD is |i - 10| / 60, their median 4 / 60. The floor of 60 is C(60, 30) / 2^61 = .0513.
    """
    aliases = [f"mix/{name}/{i}.json" for name in ("dice", "urns") for i in range(15)]
    write_json(folder / "run.json", {"exact_kl": dict.fromkeys(aliases, 0.25), "exact_on_target": dict.fromkeys(aliases, 0.9)})
    write_json(folder / "prompts.json", {alias: {**HALVES, "alias": alias, "request": alias} for alias in aliases})
    for mode in ("untuned", "lora"):
        write_json(folder / f"gen.{mode}.json", {alias: {"a": 20 + i, "b": most - i} for i, alias in enumerate(aliases)})


def test_samples_of_many_prompts_are_summed_up_as_well(tmp_path):
    from diffusecli.report.html import html_report
    from tests.report.test_html import Parsed

    for name in ("first-of-two-runs", "second-of-two-runs"):
        sampled_run(tmp_path / name, 40 if name < "g" else 60)
    found = evaluate([tmp_path])
    text = rendered(found)
    lines = [words(line) for line in text.splitlines()]
    at = next(i for i, line in enumerate(lines) if line[:1] == ["dice"])
    follow = sum(row.verdict.startswith("follows the target (") and "/dice/" in row.prompt.alias and row.run.endswith("first-of-two-runs") and row.mode == "lora"
                 for row in found.rows)  # fmt: skip
    assert 0 < follow < 15
    assert lines[at][1:] == ["first-of-two-…", "(tuned)", str(follow), "of", "15", "0.2500", "90.0%", "0.067", "0.015"]
    assert "furthest from the target, by the excess TVD of samples: 10 of 30 prompts" in text
    assert re.search(r"^first-of-two-runs \(tuned\): \d+ of 30 follow their target, \d+ undecided, \d+ do not$", text, re.MULTILINE)
    page = Parsed(html_report(found))
    assert sum(attributes.get("class") == "prompt" for tag, attributes in page.tags if tag == "section") == 10
    assert len(found.differences) == 4 * 30
    shown = sum("95 % interval" in words for words in page.words if words.startswith(("+", "−")))
    assert shown == 2 * 10, "of prompts shown, between runs: within one, both samplers have the same answers"
    assert "| dice |" in as_markdown(found)


def test_few_answers_do_not_make_a_prompt_the_furthest_from_its_target():
    """20 of them have the TVD of a perfect sampler; 1000 have less, but far more than a perfect sampler."""
    coin = Prompt(request="x", targets=("a", "b"), alias="few.json")
    other = Prompt(request="y", targets=("a", "b"), alias="many.json")
    given = (
        SampleSet("r", "lora", coin, Answers({"a": 12, "b": 8})),
        SampleSet("r", "lora", other, Answers({"a": 580, "b": 420})),
    )
    rows = evaluate([], Question(given=given)).rows
    assert [row.prompt.alias for row in worst(rows)] == ["many.json", "few.json"]
    assert rows[0].figures.tvd > rows[1].figures.tvd
    assert worst_figures(worst(rows))[0] == ["N", "TVD", "perfect sampler", "excess", "valid"]
    assert [line[0] for line in worst_figures(worst(rows))] == ["N", "1000", "20"]


def test_overviews_of_many_prompts_are_medians_by_folder():
    out = io.StringIO()
    prompts = [
        Prompt(request="x", targets=tuple(map(str, range(n))), alias=f"mix/{family}/{n}.json")
        for family in ("coins", "dice")
        for n in range(1, 60)
    ]
    Console(file=out, width=100).print(prompts_overview(prompts))
    lines = out.getvalue().splitlines()
    assert any(line.split()[:4] == ["coins", "(59", "prompts)", "30"] for line in lines)
    assert "Medians over the prompts of each folder." in lines
    assert len(lines) < 12


def test_an_overview_counts_wordings_where_a_prompt_has_several():
    one = Prompt(request="x", targets=("a", "b"), alias="one.json")
    more = Prompt(request=("x", "y", "z"), held_out_requests=("w",), targets=("a", "b"), alias="more.json")

    def shown(*prompts):
        out = io.StringIO()
        Console(file=out, width=100).print(prompts_overview(prompts))
        return [line.split() for line in out.getvalue().splitlines()]

    assert ["more", "3", "+", "1", "2", "0.693", "2.0", "2.0"] in shown(one, more)
    assert ["one", "1", "2", "0.693", "2.0", "2.0"] in shown(one, more)
    assert ["one", "2", "0.693", "2.0", "2.0"] in shown(one)
