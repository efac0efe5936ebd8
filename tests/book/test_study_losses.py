"""The comparison of losses: what a step sees of a tree, fair settings, and tables with values by hand."""

import csv
import json
from itertools import count

import numpy as np
import pytest

from benchmarks.study import losses, losses_plan, losses_results, page, plan, stages
from benchmarks.study.losses_plan import MEASURED, MEASURING, SEEDS, SETS, TRAINING, WAYS
from benchmarks.study.tasks import FAMILIES, PARAMETERS, TRAINED, law_of
from diffusecli.models.loading import load_model
from diffusecli.models.source import model_source
from diffusecli.models.trie import TokenTrie
from diffusecli.prompts.config_files import read_config
from diffusecli.prompts.prompt import Prompt
from diffusecli.report.svg import of_lines
from diffusecli.training.start import adapt
from tests.book.test_study import write_lines

A, B, C, END = 1, 2, 3, 0
TRIE = TokenTrie.build([(A, B, END), (A, C, END), (B, END)], [0.5, 0.25, 0.25])


def masses(trie):
    """Path to a node -> its mass."""
    return {tuple(trie.tokens[trie.ancestors(node)].tolist()): mass for node, mass in enumerate(trie.masses.tolist())}


def drawn(way, path, trie=TRIE):
    """What a step sees if this path is drawn, the first draw of a generator that always gives its middle."""
    middle = (trie.weights[:path].sum() + trie.weights[path] / 2) / trie.weights.sum()

    class Rng:
        def random(self, size):
            return np.full(size, middle)

    return losses.part_of(trie, WAYS[way], Rng())


def test_the_whole_tree_is_trained_as_it_is():
    assert losses.part_of(TRIE, WAYS["tree"], np.random.default_rng(0)) is TRIE


def test_soft_targets_are_the_conditionals_at_each_node_of_one_path():
    assert masses(drawn("path", 0)) == pytest.approx({
        (A,): 0.75, (B,): 0.25,  # the root
        (A, B): 2 / 3, (A, C): 1 / 3,  # after A
        (A, B, END): 1,
    })  # fmt: skip
    assert masses(drawn("path", 2)) == pytest.approx({(A,): 0.75, (B,): 0.25, (B, END): 1})


def test_a_plain_sample_is_one_path_with_all_the_weight():
    assert masses(drawn("hard", 1)) == {(A,): 1, (A, C): 1, (A, C, END): 1}


@pytest.mark.parametrize("way", ["path", "hard"])
def test_every_way_has_the_loss_of_the_whole_tree_as_its_mean(way):
    """Over all draws, by their weights: so the ways differ in noise and time alone. A step scales trees by the prompt's share."""
    trie = TRIE.scaled(0.25)
    found = dict.fromkeys(masses(trie), 0.0)
    for path, weight in enumerate(TRIE.weights):
        for node, mass in masses(drawn(way, path, trie)).items():
            found[node] += weight * mass
    assert found == pytest.approx(masses(trie))


@pytest.mark.parametrize(("way", "draws"), [("path-8", 8), ("hard-8", 8)])
def test_of_eight_samples_each_counts_an_eighth(way, draws):
    """Stratified: half of all draws from the first path, a quarter from each of the others, which gives the whole tree."""
    assert WAYS[way].draws == draws
    assert masses(losses.part_of(TRIE, WAYS[way], np.random.default_rng(0))) == pytest.approx(masses(TRIE))


def test_24_families_are_trained_and_six_are_held_out():
    assert len(set(TRAINING)) == 72
    assert {name: len(some) for name, some in MEASURING.items()} == {TRAINED: 12, PARAMETERS: 12, FAMILIES: 6}
    trained = {(law_of(one).outcomes, law_of(one).weights) for one in TRAINING}

    def family(distribution):
        """The words of the option without its numbers."""
        return tuple("".join(c if c.isalpha() or c == "_" else " " for c in " ".join(distribution[:2])).split())

    families = {family(one) for one in TRAINING}
    assert len(families) == 24
    assert {family(one) for one in MEASURING[FAMILIES]}.isdisjoint(families)
    assert len({family(one) for one in MEASURING[FAMILIES]}) == 6
    for name in (PARAMETERS, FAMILIES):
        assert trained.isdisjoint((law_of(one).outcomes, law_of(one).weights) for one in MEASURING[name])
    assert set(MEASURING[TRAINED]) <= set(TRAINING)


def test_wasserstein_is_a_share_of_the_range_among_valid_answers():
    prompt = Prompt(request="Roll.", targets=("{0}", "{10}"))
    assert losses.wasserstein(prompt, np.log([0.002, 0.006])) == pytest.approx(0.25)  # 3/4 instead of 1/2 at the far end
    assert losses.wasserstein(prompt, np.array([-2000.0, -2000.0])) == pytest.approx(0)
    assert losses.wasserstein(Prompt(request="Toss.", targets=("{heads}", "{tails}")), np.log([0.5, 0.5])) is None


@pytest.fixture
def curve(tiny_model_folder):
    """The curve of a tiny model by a clock on which every step takes a second."""

    def make(way, seconds=16, seed=0):
        import torch

        config = read_config("configs/mixture.yaml", [f"model={tiny_model_folder}", "retain=off", "lora.r=4", f"seed={seed}"])
        torch.manual_seed(seed)
        base = load_model(model_source(config), lambda _: None)
        adapt(base, config.lora, None, lambda _: None)
        prompts = [
            Prompt(request=f"Roll {n}.", targets=("{1}", "{2}", "{4}"), weights=(n, 1, 1), alias=f"{n}.json") for n in range(1, 9)
        ]
        ticks, slow = count(), count(0, 2)
        clocks = (lambda: float(next(ticks)), lambda: float(next(slow)))
        sets = {TRAINED: prompts[:2], PARAMETERS: prompts[2:3], FAMILIES: prompts[3:4]}
        return list(losses.train(WAYS[way], config, base, prompts, sets, seconds, clocks))

    return make


def test_a_curve_has_the_start_and_log_spaced_times_of_every_set(curve):
    found = curve("tree")
    assert [line["set"] for line in found[:3]] == list(SETS)
    assert len(found) == 3 * (MEASURED + 1)
    trained = [line for line in found if line["set"] == TRAINED]
    assert [line["cpu_seconds"] for line in trained] == [0, 1, 2, 4, 6, 10, 16]  # the first step at or after 16 ** (k / 5)
    assert [line["wall_seconds"] for line in trained] == [2 * line["cpu_seconds"] for line in trained]
    assert [line["steps"] for line in trained] == [line["cpu_seconds"] for line in trained]
    assert trained[-1]["kl"] < trained[0]["kl"]
    assert all(0 <= line["wasserstein"] <= 1 for line in found)


def test_all_ways_start_alike_and_samples_feed_fewer_tokens(curve):
    found = {way: curve(way, seconds=2) for way in WAYS}
    assert len({json.dumps(some[:3]) for some in found.values()}) == 1
    assert len({some[-1]["kl"] for some in found.values()}) == len(WAYS)
    fed = {way: some[-1]["tokens"] for way, some in found.items()}
    assert fed["hard"] < fed["tree"]
    assert fed["path"] == fed["hard"]  # the children that soft targets add are never fed
    assert curve("path", seconds=2) == found["path"]  # by the seed


def line(way, seed, name, seconds, kl, wasserstein=0.125):
    return {
        "set": name, "way": way, "seed": seed, "cpu_seconds": seconds, "wall_seconds": 3 * seconds, "steps": seconds // 2,
        "tokens": 100 * seconds, "kl": kl, "wasserstein": wasserstein,
    }  # fmt: skip


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """The rows of a table from lines: the tree has 4, 1 and 1/4 nats after 0, 10, 20 seconds, plain samples 4, 2 and 1."""
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    found = [
        line(way, seed, name, seconds, kl / (1 + seed if seconds else 1), 0.25 / (1 + seconds))
        for way, kls in (("tree", (4, 1, 0.25)), ("hard", (4, 2, 1)))
        for seed in (0, 1)
        for name in SETS
        for seconds, kl in zip((0, 10, 20), kls, strict=True)
    ]
    write_lines(tmp_path, "losses", *found)

    def table(name):
        text = page.filled(f"<!-- table: {name} -->\n<!-- end -->\n").splitlines()[1:-1]
        return {cells[0]: cells[1:] for cells in (row.strip("| ").split(" | ") for row in text)}

    return table


def test_the_table_has_the_start_and_the_end_of_each_loss(rows):
    found = rows("losses")
    assert found["before training"] == ["0", "0", *["4.000", "25.0"] * 3]
    assert found["whole tree"][:4] == ["10 (10 to 10)", "2000 (2000 to 2000)", "0.188 (0.125 to 0.250)", "1.2 (1.2 to 1.2)"]
    assert "one path, soft targets" not in found


def test_how_much_sooner_is_a_ratio_with_the_range_over_seeds(rows):
    """Seed 0: 1 nat after 10 seconds, not 20. Seed 1: from 4 to 1/2 in 10 seconds, so 1/2, the end of plain samples, after 10 seconds, too."""
    found = rows("losses-sooner")
    assert found["whole tree"][:3] == ["10 (10 to 10)", "2.0× (2.0 to 2.0)", "2.0× (2.0 to 2.0)"]
    assert "one sample, plain" not in found  # it is what the others are compared with
    assert rows("losses-tree")["one sample, plain"] == found["whole tree"]


def test_a_kl_that_a_loss_never_has_is_not_reached(tmp_path, rows):
    with (tmp_path / "losses.csv").open("a", newline="") as file:
        some = [line("path", 0, name, seconds, kl) for name in SETS for seconds, kl in ((0, 4), (20, 3))]
        csv.DictWriter(file, list(some[0])).writerows(some)
    assert rows("losses-sooner")["one path, soft targets"] == ["not reached (1 of 1 seeds)", "-", "-"] * 3


def test_tables_are_empty_and_no_picture_is_drawn_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    for name in ("losses", "losses-sooner", "losses-tree"):
        assert page.filled(f"<!-- table: {name} -->\n<!-- end -->\n").splitlines()[1] == "Not measured yet."


def test_the_picture_has_a_line_per_loss_by_seconds(rows):
    drawn = losses_results.chart(page.lines("losses"))
    assert [(curve.name, curve.value) for curve in drawn.curves] == [("whole tree", "0.1875"), ("one sample, plain", "0.7500")]
    assert drawn.across == "CPU seconds of training, one thread"
    assert "whole tree" in of_lines(drawn, "", "")


def test_every_run_is_a_command_of_its_own_whose_lines_are_collected(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    every = [stage for seed in range(SEEDS + 1) for stage in plan.stages_of(["losses"], seed)]
    assert (
        len({stage.product for stage in every})
        == len({stage.name for stage in every})
        == sum(way.seeds for way in WAYS.values())
        == len(every)
    )
    done = losses_plan.stage("path", 1)
    stages.write_json(done.product, {"curve": [{"set": TRAINED, "kl": 0.5}]})
    journal = {done.name: {"command": done.told, "done": True}}
    assert list(losses_results.lines(journal)) == [{"way": "path", "seed": 1, "set": TRAINED, "kl": 0.5}]
