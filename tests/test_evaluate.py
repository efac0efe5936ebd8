"""Runs on disk become figures: which samples, which prompts, and when they do not belong together."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from diffusecli.errors import InputError
from diffusecli.evaluate import evaluate
from diffusecli.report.tables import evaluation
from diffusecli.runs import RunDir, write_json
from diffusecli.sample import Wanted, resolve, sample
from diffusecli.sampling import SamplingSettings

HALVES = {"alias": "p.json", "request": "x", "response": [""], "targets": ["a", "b"]}


def run_with(folder, samples, manifest=None, meta=None, mode="lora"):
    run = RunDir(folder)
    write_json(run.prompts, {"p.json": HALVES})
    write_json(run.manifest, manifest or {})
    write_json(run.samples(mode), {"p.json": samples})
    if meta is not None:
        write_json(folder / f"gen.{mode}.meta.json", meta)
    return run


def rendered(rows, width=80):
    console = Console(width=width, record=True, file=io.StringIO(), color_system=None)
    console.print(evaluation(rows))
    return console.export_text()


def test_the_worked_check_is_what_the_table_says(tmp_path):
    run_with(tmp_path / "run", ["a"] * 6 + ["b"] * 4, {"exact_kl": {"p.json": 0.0123}})
    text = rendered(evaluate([tmp_path]))
    row = next(line for line in text.splitlines() if line.strip().startswith("lora"))
    assert row.split() == ["lora", "10", "100.0", "%", "0.723/0.693", "2/2.0", "0.100/0.123", "0.0123"]
    assert any(line.split()[:3] == ["a", "50.0", "%"] and "60.0 %" in line for line in text.splitlines())


def test_modes_stand_side_by_side_untuned_first(tmp_path):
    run_with(tmp_path / "run", ["junk"] * 20, mode="untuned")
    run_with(tmp_path / "run", ["a", "b"] * 500)
    rows = evaluate([tmp_path / "run"])
    assert [row.mode for row in rows] == ["untuned", "lora"]
    text = rendered(rows)
    assert "before: 0.0 % valid" in text
    assert "after: 100.0 % valid" in text
    assert "follows the target" in text
    assert "20 x 'junk'" in text


def test_a_run_of_the_original_is_evaluated_from_its_prompt_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "p.json").write_text(json.dumps({k: v for k, v in HALVES.items() if k != "alias"}))
    folder = tmp_path / "results-lora" / "old"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("model: m\n")
    write_json(
        folder / "prompts.json", {"prompts/p.json": {"alias": "prompts/p.json", "tokens": [1], "targets": [[[2]]], "weights": [1]}}
    )
    write_json(folder / "gen.json", {"prompts/p.json": ["a", "b", " a"]})
    (row,) = evaluate([tmp_path / "results-lora"])
    assert (row.mode, row.tally.counts) == ("lora", (2, 1))


def test_samples_are_judged_by_the_prompt_they_were_drawn_for(tmp_path):
    changed = {**HALVES, "targets": ["c", "d"]}
    run_with(tmp_path / "run", ["c", "d"], meta={"prompts": {"p.json": changed}})
    (row,) = evaluate([tmp_path / "run"])
    assert row.prompt.targets == ("c", "d")
    assert row.figures.valid == 1


@pytest.mark.parametrize(
    ("key", "message"), [("model_revision", "another base model"), ("adapter_sha256", "an adapter that was replaced")]
)
def test_samples_of_something_replaced_since_are_refused(tmp_path, key, message):
    run_with(tmp_path / "run", ["a"], manifest={key: "new"}, meta={key: "old"})
    with pytest.raises(InputError, match=message):
        evaluate([tmp_path / "run"])


def test_the_exact_kl_is_not_shown_beside_samples_of_a_bent_distribution(tmp_path):
    run = run_with(tmp_path / "run", ["a"], manifest={"exact_kl": {"p.json": 0.1}}, meta={"settings": {"temperature": 1.0}})
    assert evaluate([run.path])[0].exact_kl == 0.1
    run_with(tmp_path / "run", ["a"], manifest={"exact_kl": {"p.json": 0.1}}, meta={"settings": {"temperature": 0.5}})
    (row,) = evaluate([run.path])
    assert row.exact_kl is None
    assert "temperature 0.5" in row.settings


def test_names_from_files_cannot_steer_the_terminal(tmp_path):
    hostile = "p\x1b]0;x\x07.json"
    folder = tmp_path / "run"
    write_json(folder / "run.json", {})
    write_json(folder / "gen.lora.json", {hostile: ["\x1b[31ma"]})
    write_json(folder / "prompts.json", {hostile: {**HALVES, "targets": ["a\x1b[2J"]}})
    text = rendered(evaluate([folder]))
    assert "\x1b" not in text
    assert "\\x1b" in text


@pytest.mark.parametrize(
    ("samples", "message"), [({"p.json": "text"}, "must be a list of strings"), ({"gone.json": ["a"]}, "which is not there")]
)
def test_sample_files_that_cannot_be_used_are_told(tmp_path, samples, message):
    run = run_with(tmp_path / "run", ["a"])
    write_json(run.samples("lora"), samples)
    with pytest.raises(InputError, match=message):
        evaluate([run.path])


def drawn(wanted, **settings):
    resolved = resolve(wanted, Path("results"))
    return sample(resolved, SamplingSettings(20, 3, **settings), max_rows=None, report=lambda *_: None, notice=lambda _: None)


def test_a_moved_run_is_sampled_from_where_it_is(trained, tmp_path):
    (tmp_path / "results" / "r1").rename(tmp_path / "results" / "moved")
    resolved = resolve(Wanted(), tmp_path / "results")
    assert "moved" in resolved.told
    assert resolved.path == tmp_path / "results" / "moved" / "gen.lora.json"
    assert drawn(Wanted(tmp_path / "results" / "moved")).path == resolved.path


def test_samples_name_their_adapter_and_settings(trained):
    done = drawn(Wanted(Path(trained.output_dir)), seed=3)
    meta = json.loads((done.path.parent / "gen.lora.meta.json").read_text())
    assert meta["adapter_sha256"] == json.loads((done.path.parent / "run.json").read_text())["adapter_sha256"]
    assert (meta["settings"]["seed"], meta["mode"], meta["dtype"]) == (3, "lora", "float32")


def test_an_adapter_on_other_weights_of_the_same_name_is_refused(trained, tiny_model_folder, tmp_path):
    from tests.conftest import byte_tokenizer, tiny_llama

    other = tmp_path / "other"
    tiny_llama(seed=9).save_pretrained(other)
    byte_tokenizer().save_pretrained(other)
    path = RunDir(tmp_path / "results" / "r1").path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": str(other)}))
    with pytest.raises(InputError, match="was trained on other weights"):
        drawn(Wanted(Path(trained.output_dir), model=str(other), mode="lora"))


def test_output_that_is_no_file_is_refused(trained, tmp_path):
    with pytest.raises(InputError, match="is no ordinary file"):
        resolve(Wanted(Path(trained.output_dir), output=tmp_path), Path("results"))
