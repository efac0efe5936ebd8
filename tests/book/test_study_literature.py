"""The tasks of published work: sound prompts, options that no mixture trains, figures with values by hand, tables from their lines."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.study import collect, generator, literature, literature_tables, page, plan, stages, tasks
from benchmarks.study.divergences import jensen_shannon, mean_jensen_shannon, of_counts, of_probabilities, summed
from diffusecli.evaluation.perfect import mean_tvd, perfect_sampler
from diffusecli.files.documents import Document
from diffusecli.prompts.config_files import read_config
from diffusecli.prompts.mixture.reserved import distribution_key, is_reserved
from diffusecli.prompts.mixture.splits import draw_mixture
from diffusecli.prompts.mixture.texts import pools
from diffusecli.prompts.prompt_checks import content_problems
from diffusecli.prompts.prompt_files import read_prompts
from diffusecli.prompts.stated_options import require_statable

EVERY = [distribution for task in tasks.TASKS.values() for distribution in task.values()]


def test_every_prompt_is_sound_and_can_be_asked_by_methods_of_prompting():
    for distribution in EVERY:
        prompt = tasks.prompt_of(distribution)
        problems = content_problems(Document("", "", json.loads(prompt.to_json())), prompt)
        assert not [problem for problem in problems if problem.severity == "error"], distribution
        require_statable(prompt)
        assert sum(prompt.probabilities) == pytest.approx(1)


def test_no_two_prompts_of_a_task_ask_for_the_same():
    for task in tasks.TASKS.values():
        requests = {tasks.prompt_of(distribution).request for distribution in task.values()}
        assert len(requests) == len(task)


def test_there_are_as_many_targets_as_in_the_papers():
    assert {name: len(task) for name, task in tasks.TASKS.items()} == {"choices": 5, "bernoulli": 101, "laws": 15, "stated": 196}
    splits = [name.partition("/")[0] for name in tasks.STATED]
    assert {split: splits.count(split) for split in splits} == {"trained": 80, "parameters": 16, "families": 100}
    assert [len(tasks.law_of(one).outcomes) for one in tasks.CHOICES.values()] == [2, 2, 3, 3, 9]


def test_no_target_of_another_split_is_trained():
    laws = {name: tasks.law_of(distribution) for name, distribution in tasks.STATED.items()}
    keys = {name: (law.outcomes, law.weights) for name, law in laws.items()}
    trained = {key for name, key in keys.items() if name.startswith("trained/")}
    assert len(trained) == 80
    assert trained.isdisjoint(key for name, key in keys.items() if not name.startswith("trained/"))


def test_the_mixture_has_none_of_the_options_in_its_banks():
    options = {outcome for one in tasks.CHOICES.values() for outcome in tasks.law_of(one).outcomes}
    banked = {word.casefold() for words in pools().values() for word in words}
    assert len(options) == 9
    assert len(banked) > 500
    assert options.isdisjoint(banked)
    drawn = [asked for split in draw_mixture(400, seed=0).values() for family in split.values() for asked in family]
    assert options.isdisjoint(outcome.casefold() for asked in drawn for outcome in asked.distribution.outcomes)


def test_the_mixture_never_trains_the_unequal_weights_of_the_choices():
    for name in ("biased-two", "three", "biased-three", "biased-nine"):
        assert is_reserved(tasks.law_of(tasks.CHOICES[name])), name
    assert distribution_key(tasks.law_of(tasks.CHOICES["two"])) == "two: 0.5"  # a fair coin: the one that is trained


def test_a_bernoulli_prompt_weighs_0_and_1():
    law = tasks.law_of(tasks.BERNOULLI["others/037"])
    assert (law.outcomes, law.weights) == (("0", "1"), pytest.approx((0.63, 0.37)))


def test_the_divergence_is_in_bits():
    assert jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 1
    # p = (1/2, 1/2), q = (1/4, 3/4): m = (3/8, 5/8)
    by_hand = (0.5 * math.log2(4 / 3) + 0.5 * math.log2(4 / 5) + 0.25 * math.log2(2 / 3) + 0.75 * math.log2(6 / 5)) / 2
    assert jensen_shannon(np.array([0.5, 0.5]), np.array([0.25, 0.75])) == pytest.approx(by_hand)
    assert jensen_shannon(np.array([0.5, 0.5]), np.array([0.5, 0.5])) == 0


def test_the_mean_divergence_of_a_perfect_sampler_is_near_its_asymptote():
    p = np.full(3, 1 / 3)
    assert mean_jensen_shannon(p, p, 1000) == pytest.approx((3 - 1) / (8 * 1000 * math.log(2)), rel=0.1)


def test_answers_that_are_no_target_count_as_an_outcome_of_weight_zero():
    p = np.array([0.5, 0.5])
    found = of_counts(p, np.array([1, 1]), 4)  # half of the answers are valid, and evenly spread
    assert (found["valid"], found["tv"], found["valid_tv"], found["valid_js"]) == (0.5, 0.5, 0, 0)
    # f = (1/4, 1/4, 1/2), m = (3/8, 3/8, 1/4): KL(p || m) = log2(4/3), KL(f || m) = 1/2 log2(2/3) + 1/2
    assert found["js"] == pytest.approx((math.log2(4 / 3) + 0.5 * math.log2(2 / 3) + 0.5) / 2)
    assert found["excess_tv"] == pytest.approx(0.5 - mean_tvd(4, p))
    assert found["valid_excess_tv"] == pytest.approx(-0.25)  # of two draws half agree


def test_without_a_valid_answer_there_is_no_figure_of_valid_ones():
    found = of_counts(np.array([0.5, 0.5]), np.array([0, 0]), 4)
    assert (found["tv"], found["js"]) == (1, 1)
    assert "valid_tv" not in found


def test_the_model_that_is_the_target_has_no_excess_and_half_of_it_off_target_counts():
    p = np.array([0.25, 0.75])
    perfect, half = of_probabilities(p, p, 500), of_probabilities(p, p / 2, 500)
    assert (perfect["tv"], perfect["excess_tv"], perfect["js"]) == (0, pytest.approx(0, abs=1e-12), 0)
    assert (half["valid"], half["tv"], half["valid_tv"]) == (0.5, 0.5, 0)
    assert half["excess_tv"] == pytest.approx(0.5 - mean_tvd(500, p), abs=1e-9)


def test_excess_tv_subtracts_what_simulated_perfect_samples_show():
    p = (0.1, 0.2, 0.3, 0.4)
    simulated = perfect_sampler(p, 500, 0, 2000).tvd
    counts = np.array([100, 100, 150, 150])  # TVD .1
    found = of_counts(np.array(p), counts, 500)
    assert found["excess_tv"] == pytest.approx(0.1 - simulated.mean(), abs=4 * simulated.std() / math.sqrt(2000))


def test_the_sum_over_the_sweep_of_a_perfect_and_of_a_constant_sampler():
    chances = [percent / 100 for percent in range(101)]
    weights = [np.array([1 - p, p]) for p in chances]

    def total(q, name="tv"):
        return summed([of_probabilities(p, q(p), 100)[name] for p in weights], 101)

    assert total(lambda p: p) == 0
    assert total(lambda p: np.array([0.5, 0.5])) == pytest.approx(25.5)  # 2 (.5 + .49 + … + .01)
    assert total(lambda p: np.array([1.0, 0.0])) == pytest.approx(50.5)
    perfect = total(lambda p: p, "mean_tv")
    assert perfect == pytest.approx(100 * math.pi / 8 * math.sqrt(2 / (math.pi * 100)), rel=0.02)  # of a normal law: ∫ sd = pi / 80


def test_a_pseudo_random_generator_scores_as_published(monkeypatch):
    monkeypatch.setattr(generator, "REPEATS", 400)
    monkeypatch.setattr(generator, "TESTED", 1)
    scores = {(task, name): (draws, np.array(values)) for task, name, draws, values in generator.scored()}
    draws, values = scores["choices", "two"]
    assert draws == 100
    assert 1000 * values.mean() == pytest.approx(1.85, abs=4 * 1000 * values.std() / 20)
    assert scores["bernoulli", "sum"][1].mean() == pytest.approx(3.11, abs=0.06)
    assert 0 <= scores["laws", "passed"][1][0] <= 15


def test_the_prompts_of_a_task_are_written_and_those_of_an_older_run_are_gone(tmp_path):
    stale = tmp_path / "prompts" / "old.json"
    stale.parent.mkdir()
    stale.touch()
    tasks.write("stated", tmp_path)
    assert len(read_prompts([tmp_path / "prompts"])) == 196
    assert not stale.exists()
    assert read_config(tmp_path / "untuned" / "config.yaml", []).output_dir == str(tmp_path / "untuned")


def test_every_training_is_a_sound_config_and_no_stage_reads_what_none_writes():
    every = list(dict.fromkeys(stage for task in tasks.TASKS for stage in literature.stages(task)))
    trainings = [stage for stage in every if "train" in stage.command]
    assert [stage.product.parent.name for stage in trainings] == ["mixture-0", "eighty-0"]
    for stage in trainings:
        config = read_config(stage.command[2], [word for word in stage.command if "=" in word])
        assert config.output_dir == str(stage.product.parent)
    written = set()
    for stage in every:
        assert written.issuperset(stage.reads), stage.name
        written.add(stage.product)


def test_the_expected_minutes_of_all_tasks_leave_room_for_the_rest_of_the_study():
    every = dict.fromkeys(stage for task in tasks.TASKS for stage in literature.stages(task))
    assert all(stage.minutes > 0 for stage in every)
    assert sum(stage.minutes for stage in every) < 200


def test_names_and_products_of_all_pieces_differ():
    every = dict.fromkeys(plan.stages_of(plan.PIECES, 0))
    assert len({stage.name for stage in every}) == len({stage.product for stage in every}) == len(every)


def row(task, name, mode, n, counts, q=None):
    targets = [{"target": str(i), "weight": 0.5, "count": count} for i, count in enumerate(counts)]
    return {
        "mode": mode, "prompt": str(literature.prompts_of(task) / f"{name}.json"), "targets": targets, "n": n,
        "figures": {"p_value": 0.5} if n else None, "exact": {"q": q} if q else None,
    }  # fmt: skip


def evaluated(stage, *rows):
    stage.product.parent.mkdir(parents=True, exist_ok=True)
    for path in stage.reads:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch() if not path.exists() else None
    stage.product.write_text(json.dumps({"rows": rows, "retention_kl": {str(literature.run_of("mixture")): 0.0625}}))
    journal = stages.read_journal()
    journal[stage.name] = {"command": stage.told, "done": True, "seconds": 1}
    stages.write_json(stages.JOURNAL, journal)


def test_lines_come_from_what_evaluate_printed_and_only_from_what_is_done(workplace):
    assert list(literature.lines("choices", stages.read_journal())) == []
    evaluated(literature.exact_of("choices"), row("choices", "two", "untuned", 0, [0, 0], [0.25, 0.25]))
    *_, tuned = literature.stages("choices")
    both = row("choices", "two", "lora", 100, [40, 60], [0.5, 0.5])
    of_run = [row("choices", "two", mode, 0, [0, 0], [0.25, 0.25]) for mode in ("untuned", "lora")]
    evaluated(tuned, both, *of_run)
    found = list(literature.lines("choices", stages.read_journal()))
    assert [(line["model"], line["kind"], line["prompt"]) for line in found] == [
        ("untuned", "exact", "two"), ("mixture", "exact", "two"), ("mixture", "sampled", "two"),
    ]  # fmt: skip
    assert [line["tv"] for line in found] == pytest.approx([0.5, 0, 0.1])
    assert found[2]["p_value"] == 0.5
    assert [line["drift"] for line in found] == [0, 0.0625, 0.0625]


def test_answers_to_a_method_of_prompting_are_its_own(workplace):
    stage = next(one for one in literature.stages("choices") if one.name == "choices/untuned-ask-direct/evaluate")
    evaluated(stage, row("choices", "two", "ask direct", 100, [1, 1]))
    (line,) = literature.lines("choices", stages.read_journal())
    assert (line["model"], line["kind"], line["valid"]) == ("untuned, direct", "sampled", 0.02)


def published(folder):
    text = (Path(collect.__file__).parent / "results" / "published.csv").read_text()
    (folder / "published.csv").write_text(text)
    (folder / "generator.csv").write_text(
        "task,score,draws,repeats,mean,low,high\n"
        + "".join(f"choices,{name},100,9,0.002,0,1\n" for name in tasks.CHOICES)
        + "bernoulli,sum,100,9,3.1,2.6,3.6\nlaws,passed,1000,9,14.2,12,15\n"
    )


def write_lines(folder, name, *lines):
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for line in lines for key in line)))
        writer.writeheader()
        writer.writerows(lines)


def table(name):
    return [line.strip("| ").split(" | ") for line in page.filled(f"<!-- table: {name} -->\n<!-- end -->\n").splitlines()[1:-1]]


def test_a_task_that_is_not_measured_has_no_table(workplace):
    published(workplace)
    for name in tasks.TASKS:
        assert table(name) == [["Not measured yet."]]


def test_divergences_are_told_in_thousandths_of_all_answers_and_of_valid_ones(workplace):
    published(workplace)
    line = {"model": "untuned, direct", "kind": "sampled", "prompt": "two", "n": 100, "valid": 0.5, "js": 0.25, "valid_js": 0.0625}
    exact = {
        "model": "untuned",
        "kind": "exact",
        "prompt": "three",
        "n": 100,
        "valid": 0.25,
        "mean_js": 0.5,
        "valid_mean_js": 0.125,
    }
    write_lines(workplace, "choices", line, exact)
    rows = {cells[0]: cells[1:] for cells in table("choices")}
    assert rows["untuned, direct, sampled"] == ["50.0", "250.0 / 62.5", "-", "-", "-", "-"]
    assert rows["untuned, exact"] == ["25.0", "-", "-", "500.0 / 125.0", "-", "-"]
    assert rows["pseudo-random generator, ours"] == ["100", *["2.0"] * 5]
    assert rows["DeepSeek-R1, string seed of thought"] == ["-", "3.0", "1.5", "5.0", "4.3", "18.1"]


def test_sums_of_a_part_of_the_sweep_are_scaled(workplace):
    published(workplace)
    line = {"model": "untuned, direct", "kind": "sampled", "n": 100, "valid": 0.5}
    write_lines(
        workplace, "bernoulli", {**line, "prompt": "fifths/000", "tv": 0.5, "valid_tv": 0.25},
        {**line, "prompt": "fifths/005", "tv": 1, "valid_tv": ""},
    )  # fmt: skip
    rows = {cells[0]: cells[1:] for cells in table("bernoulli")}
    assert rows["untuned, direct, sampled"] == ["50.0", "2", "75.75", "25.25", "-", "-"]
    assert rows["Qwen2.5-72B, best method"] == ["-", "101", "-", "4.49", "-", "-"]


@pytest.mark.parametrize(
    ("p_value", "valid", "passed"), [("0.05", "0.95", True), ("0.049", "1", False), ("0.9", "0.94", False), ("", "0", False)]
)
def test_a_law_passes_with_fitting_answers_that_are_nearly_all_valid(p_value, valid, passed):
    assert literature_tables.passes({"p_value": p_value, "valid": valid}) is passed


def test_laws_that_pass_are_counted(workplace):
    published(workplace)
    line = {"model": "mixture", "kind": "sampled", "n": 1000, "valid": 0.99, "tv": 0.25, "valid_tv": 0.125}
    write_lines(workplace, "laws", {**line, "prompt": "a", "p_value": 0.5}, {**line, "prompt": "b", "p_value": 0.01})
    rows = {cells[0]: cells[1:] for cells in table("laws")}
    assert rows["tuned on the mixture, sampled"] == ["1000", "99.0", "1 of 2", "0.250 / 0.125"]
    assert rows["pseudo-random generator, ours"][2] == "14.2 of 15"


def test_medians_are_of_each_split(workplace):
    published(workplace)
    line = {"model": "eighty", "kind": "sampled", "n": 500, "valid": 0.5, "drift": 0.0625}
    trained = [{**line, "prompt": f"trained/{i}", "excess_tv": i / 8, "valid_excess_tv": 0} for i in range(3)]
    write_lines(workplace, "stated", *trained, {**line, "prompt": "families/a", "excess_tv": 0.5, "valid_excess_tv": 0.25})
    rows = {cells[0]: cells[1:] for cells in table("stated")}
    assert rows["tuned on the 80 targets, sampled"] == ["0.125 / 0.000", "50.0", "-", "-", "0.500 / 0.250", "50.0", "-", "0.062"]
    assert rows["Qwen2.5-1.5B, untrained"] == [".477", "-", ".483", "-", ".589", "-", ".584", "-"]


@pytest.mark.parametrize(("kind", "valid", "shown"), [("sampled", 0.29, False), ("sampled", 0.3, True), ("exact", 0.01, True)])
def test_figures_of_valid_answers_alone_need_thirty_of_them(kind, valid, shown):
    line = {"kind": kind, "n": "100", "valid": str(valid), "js": "0.5", "valid_js": "0.25"}
    assert literature_tables._both(line, "js", 1, 2) == ("0.50 / 0.25" if shown else "0.50 / -")
    assert literature_tables._medians([line], "js") == ("0.500 / 0.250" if shown else "0.500 / -")
