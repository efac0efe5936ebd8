"""`diffuse sample`: which model, adapter, prompts and file it takes, and that nothing is lost on the way."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from diffusecli.files.locks import lock_beside, only_writer
from diffusecli.models.adapters import ADAPTER_FILES
from diffusecli.prompts.answers import Answers
from diffusecli.runs.run_dir import RunDir
from diffusecli.runs.sample_files import journal_path, meta_path
from diffusecli.sampling.counting import CountingSampler
from diffusecli.sampling.settings import SamplingSettings
from diffusecli.system.errors import InputError, InterruptedRun
from diffusecli.verbs.evaluate import evaluate
from diffusecli.verbs.sample import Wanted, resolve, sample


def drawn(wanted, n=20, results="results", **settings):
    settings = SamplingSettings(n, 3, **settings)
    return sample(resolve(wanted, Path(results)), settings, max_rows=None, report=lambda *_: None, notice=lambda _: None)


@pytest.fixture
def run(trained):
    return Path(trained.output_dir)


def test_a_run_a_config_and_the_newest_run_are_the_same(run, tmp_path):
    found = [resolve(wanted, tmp_path / "results") for wanted in (Wanted(run), Wanted(run / "config.yaml"), Wanted())]
    assert {one.path for one in found} == {run / "gen.lora.json"}
    assert all(one.adapter == RunDir(run) for one in found)
    assert "newest run" in found[2].message


def test_untuned_of_a_run_needs_no_adapter(run):
    (run / "adapter_model.safetensors").unlink()
    assert resolve(Wanted(run, "untuned"), Path("results")).path == run / "gen.untuned.json"
    with pytest.raises(InputError, match="no adapter found"):
        resolve(Wanted(run), Path("results"))


def test_a_run_without_an_adapter_names_its_newest_checkpoint(run):
    (run / "adapter_model.safetensors").unlink()
    for name in ("checkpoint-10", "checkpoint-9", "checkpoint-of-mine"):
        (run / name).mkdir()
    with pytest.raises(InputError, match=r"found an interrupted training: finish it, or use --adapter .*checkpoint-10\)"):
        resolve(Wanted(run), Path("results"))


def test_an_adapter_alone_brings_its_base_model(run, tmp_path, prompt_file):
    foreign = tmp_path / "from-elsewhere"
    foreign.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (foreign / name).write_bytes((run / name).read_bytes())
    wanted = Wanted(adapter=foreign, prompts=(prompt_file("q.json"),))
    done = drawn(wanted, results=tmp_path / "out")
    assert done.path == tmp_path / "out" / f"from-elsewhere-{RunDir(run).adapter_sha256[:8]}" / "gen.lora.json"
    assert drawn(Wanted(run, prompts=wanted.prompts)).counts == done.counts


def test_a_model_alone_is_untuned(tiny_model_folder, tmp_path):
    done = drawn(Wanted(model=str(tiny_model_folder), requests=("Hello?",)), results=tmp_path / "out")
    assert done.path == tmp_path / "out" / tiny_model_folder.name / "asked.untuned.json"
    assert list(json.loads(done.path.read_text())) == ["Hello?"]


def test_a_request_leaves_the_samples_of_the_run_alone(run):
    before = drawn(Wanted(run)).path.read_bytes()
    done = drawn(Wanted(run, requests=("Hello?", "Hello?", "Bye?")))
    assert list(done.counts) == ["Hello?", "Bye?"]
    assert (run / "gen.lora.json").read_bytes() == before


def test_what_samples_change_for_evaluate_is_said_and_true(run, tmp_path, prompt_file):
    """Training wrote gen.json. The newest file of a sampler counts; files of another name, or elsewhere, do not."""
    for earlier in run.glob("gen*"):
        earlier.unlink()
    command = f"`diffuse evaluate {run}`"
    assert resolve(Wanted(run), Path("results")).effect == ""
    drawn(Wanted(run), n=30).path.rename(run / "gen.json")
    meta = json.loads((run / "gen.lora.meta.json").read_text())
    (run / "gen.lora.meta.json").unlink()
    (run / "gen.meta.json").write_text(json.dumps({**meta, "file": "gen.json"}))
    os.utime(run / "gen.json", (1, 1))
    expected = f"{command} now uses these samples. For the same prompts it ignores gen.json, which is kept"
    assert resolve(Wanted(run), Path("results")).effect == expected
    drawn(Wanted(run), n=20)
    assert resolve(Wanted(run), Path("results")).effect == f"These samples replaced the earlier ones in this file. {expected}"
    (row,) = evaluate([run]).rows
    assert (row.tally.n, row.file) == (20, "gen.lora.json")
    assert (run / "gen.json").is_file()
    assert resolve(Wanted(run, "untuned"), Path("results")).effect == ""
    (run / "gen.lora.json").unlink()
    assert resolve(Wanted(run, prompts=(prompt_file("other.json"),)), Path("results")).effect == ""  # gen.json has none of them
    assert resolve(Wanted(run, output=tmp_path / "mine.json"), Path("results")).effect == ""
    unused = f"{command} ignores this file"
    assert resolve(Wanted(run, output=run / "mine.json"), Path("results")).effect == unused
    assert resolve(Wanted(run, requests=("Hello?",)), Path("results")).effect == unused


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Wanted(Path("no/such")), "no/such"),
        (Wanted(model="m"), "--prompt or --request"),
        (Wanted(model="m", requests=(" ",)), "must be a non-empty text"),
        (Wanted(model="m", requests=("a\udcff",)), "must be a non-empty text"),
        (Wanted(adapter=Path("no/such/folder")), "adapter_config.json is missing"),
        (Wanted(model="m", prompts=(Path("no/such"),)), "does not exist"),
    ],
)
def test_what_is_missing_is_told(wanted, message, tmp_path):
    with pytest.raises(InputError, match=message):
        resolve(wanted, tmp_path)


@pytest.mark.parametrize("form", ["json", "jsonl", "counts", "csv"])
def test_samples_of_every_format_are_evaluated_and_the_newest_counts(run, form):
    for earlier in run.glob("gen*"):
        earlier.unlink()
    drawn(Wanted(run), n=30)
    os.utime(run / "gen.lora.json", (1, 1))
    done = drawn(Wanted(run, form=form), n=40)
    rows = evaluate([run]).rows
    assert [row.tally.n for row in rows] == [40]
    assert done.path.suffix == {"counts": ".json"}.get(form, f".{form}")


def test_the_same_samples_in_any_order_of_prompts(run, prompt_file):
    paths = [prompt_file(name) for name in ("b.json", "a.json")]
    (paths[0]).write_text(json.dumps({"request": "other", "targets": []}))
    one, two = (drawn(Wanted(run, prompts=tuple(order))).counts for order in (paths, paths[::-1]))
    assert one == two
    assert len(set(map(str, one.values()))) == 2


def test_what_is_not_of_the_run_does_not_take_the_place_of_its_samples(run, tmp_path, prompt_file):
    from tests.tiny import byte_tokenizer, tiny_llama

    drawn(Wanted(run))
    drawn(Wanted(run, "untuned"))
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    other = tmp_path / "other"
    tiny_llama(seed=9).save_pretrained(other)
    byte_tokenizer().save_pretrained(other)
    foreign = tmp_path / "foreign" / "r1"
    foreign.mkdir(parents=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (foreign / name).write_bytes((run / name).read_bytes())
    for wanted in (
        Wanted(run, "untuned", model=str(other)),
        Wanted(run, adapter=foreign),
        Wanted(adapter=foreign, prompts=(prompt_file("q.json"),)),
    ):
        assert drawn(wanted, results=run.parent).path.parent != run
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    assert len(evaluate([run.parent]).rows) == 5  # of the foreign adapter: two prompts, in two files


def test_another_precision_is_the_same_model(run):
    resolved = resolve(Wanted(run, precision="bf16"), Path("results"))
    done = sample(resolved, SamplingSettings(5, 2), max_rows=None, report=lambda *_: None, notice=lambda _: None)
    assert done.path == run / "gen.lora.json"
    assert evaluate([run]).rows[0].tally.n == 5


def test_the_settings_of_one_format_are_not_told_of_another(run):
    drawn(Wanted(run), temperature=0.5)
    drawn(Wanted(run, form="csv"), n=30)
    newest = (run / "gen.lora.csv").stat().st_mtime + 2
    os.utime(run / "gen.lora.json", (newest, newest))
    assert evaluate([run]).rows[0].settings_in_words == "settings unknown"


def test_a_file_that_is_not_samples_is_never_written_over(run, tmp_path, prompt_file):
    mine = prompt_file("mine.json")
    before = mine.read_bytes()
    with pytest.raises(InputError, match="was not written by `diffuse sample`"):
        resolve(Wanted(run, prompts=(mine,), output=mine), Path("results"))
    assert mine.read_bytes() == before


def test_samples_of_other_prompts_are_not_written_over(run, tmp_path, prompt_file):
    own, other, file = prompt_file("p.json"), prompt_file("q.json"), tmp_path / "s.json"
    drawn(Wanted(run, prompts=(own,), output=file))
    before = file.read_bytes()
    with pytest.raises(InputError, match=r"s\.json: contains samples of .*p\.json, which is not sampled now\. Choose another file"):
        resolve(Wanted(run, prompts=(other,), output=file), Path("results"))
    assert file.read_bytes() == before
    resolve(Wanted(run, prompts=(own,), output=file), Path("results"))  # the same prompt again, also by wordings
    resolve(Wanted(run, prompts=(own,), output=file, per_wording=True), Path("results"))


def test_samples_of_prompts_that_are_not_sampled_stay(run, prompt_file):
    """Another file takes the new ones; sampling the same prompts again replaces that file. `evaluate` finds the newest of each."""
    for earlier in run.glob("gen*"):
        earlier.unlink()
    p, q = prompt_file("p.json"), prompt_file("q.json")
    first = drawn(Wanted(run, prompts=(p, q)), n=30)
    before = {path.name: path.read_bytes() for path in run.glob("gen*")}
    assert drawn(Wanted(run, prompts=(q,)), n=20).path == run / "gen.lora.2.json"
    assert drawn(Wanted(run, prompts=(q,)), n=10).path == run / "gen.lora.2.json"
    assert drawn(Wanted(run, prompts=(prompt_file("r.json"),), form="csv"), n=7).path == run / "gen.lora.3.csv"
    assert {name: (run / name).read_bytes() for name in before} == before
    found = {Path(row.prompt.alias).name: row.tally.n for row in evaluate([run]).rows}
    assert found == {"p.json": 30, "q.json": 10, "r.json": 7}
    assert drawn(Wanted(run, prompts=(p, q)), n=5).path == first.path
    assert {Path(row.prompt.alias).name: row.tally.n for row in evaluate([run]).rows} == {"p.json": 5, "q.json": 5, "r.json": 7}
    for text in ("Hello?", "Bye?"):
        drawn(Wanted(run, requests=(text,)), n=3)
    assert (run / "asked.lora.2.json").is_file()
    RunDir(run).discard_samples()
    assert not list(run.glob("gen*"))


def test_the_newest_run_without_the_named_prompts_is_said(run, tmp_path, prompt_file):
    foreign = ", which has none of these prompts. Name a run to sample another one"
    assert resolve(Wanted(prompts=(prompt_file("q.json"),)), run.parent).message.endswith(f" as in newest run {run}{foreign}")
    assert foreign not in resolve(Wanted(prompts=(prompt_file("p.json"),)), run.parent).message
    assert foreign not in resolve(Wanted(requests=("Hello?",)), run.parent).message
    assert foreign not in resolve(Wanted(run, prompts=(prompt_file("q.json"),)), run.parent).message


def test_a_missing_adapter_names_the_command_that_trains_it(trained, tmp_path):
    file = tmp_path / "c o.yaml"
    file.write_text(trained.model_copy(update={"output_dir": str(tmp_path / "none")}).to_yaml())
    with pytest.raises(InputError, match=re.escape(f"Run `diffuse train '{file}'` first")):
        resolve(Wanted(file), tmp_path)


def test_what_is_sampled_is_said_after_the_model_is_found(in_process, prompt_file):
    refused = in_process("sample", "--model", "no-such-model", "--prompt", str(prompt_file("q.json")))
    assert refused.returncode == 2
    assert "sampling no-such-model" not in refused.stderr


def test_the_next_command_evaluates_the_run(in_process, run):
    done = in_process("sample", str(run), "-n", "5", "--device", "cpu")
    assert done.stderr.splitlines()[-1] == f"next: `diffuse evaluate {run}`"


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv", "a"])
def test_a_file_of_samples_is_evaluated_where_it_is(run, tmp_path, name):
    drawn(Wanted(run, output=tmp_path / name), n=25)
    (row,) = evaluate([tmp_path / name]).rows
    assert (row.tally.n, row.run, row.mode) == (25, str(tmp_path / name), "lora")
    (tmp_path / "a.meta.json").unlink()
    (bare,) = evaluate([tmp_path / name]).rows
    all_texts = row.tally.off_target + row.tally.unfinished  # which of them were cut is told beside the file
    assert (bare.tally.off_target, bare.mode, bare.settings_in_words) == (all_texts, "a", "settings unknown")


def test_names_with_dots_have_settings_of_their_own(run, tmp_path):
    for name in ("t0.5", "t0.7"):
        drawn(Wanted(run, output=tmp_path / name))
        assert (tmp_path / f"{name}.meta.json").is_file()
    with pytest.raises(InputError, match="too long"):
        resolve(Wanted(run, output=tmp_path / ("n" * 240)), Path("results"))


def test_a_second_sampling_into_the_same_file_is_refused(run):
    path = run / "gen.lora.json"
    with only_writer(path, lock_beside(path)), pytest.raises(InputError, match="another process is writing it"):
        drawn(Wanted(run))


def test_a_run_that_is_being_trained_is_not_sampled(run):
    with only_writer(run, RunDir(run).lock), pytest.raises(InputError, match="another process is writing it"):
        drawn(Wanted(run))
    assert drawn(Wanted(run)).counts


def test_what_a_server_is_asked_for_is_the_adapter_by_its_content(run):
    wanted = resolve(Wanted(run, served=True), Path("results"))
    assert wanted.served_name == f"r1-{RunDir(run).adapter_sha256[:8]}"
    assert resolve(Wanted(run, model="any name", served=True), Path("results")).mode == "lora"
    assert resolve(Wanted(run, model="any name", served=True), Path("results")).message.startswith(
        f"requesting answers of model any name (tuned, adapter {run})"
    )
    unnamed = resolve(Wanted(run, served=True, server="http://127.0.0.1:8000/v1"), Path("results")).message
    assert unnamed.startswith(
        f"requesting answers from http://127.0.0.1:8000/v1 of model {wanted.served_name} (tuned, adapter {run})"
    )
    alone = resolve(Wanted(model="gpt", requests=("x",), served=True), Path("results"))
    assert alone.message == "requesting answers of model gpt (served)"
    assert (alone.mode, alone.served_name) == ("untuned", "gpt")


def test_a_server_is_not_asked_for_the_newest_run(run):
    """Its answers would count as those of an adapter that it may not have."""
    with pytest.raises(InputError, match=r"^--engine openai needs a run or --model\. Example: --model NAME$"):
        resolve(Wanted(served=True, requests=("x",)), run.parent)


def test_a_server_that_is_asked_for_the_base_model_of_a_run_answers_untuned(run, trained):
    """By the name or path of the base model, with or without folders before it. The user can insist."""
    prompts = tuple(map(Path, trained.train_prompts))
    for name in (trained.model, Path(trained.model).name, f"{Path(trained.model).name}:latest"):
        for source in (Wanted(run, model=name, served=True), Wanted(adapter=run, model=name, served=True, prompts=prompts)):
            found = resolve(source, Path("results"))
            assert (found.mode, found.adapter, found.path, found.served_name) == ("untuned", None, run / "gen.untuned.json", name)
            assert f"; {name} is the name of its base model. If the server has the tuned model" in found.message
    assert resolve(Wanted(run, "lora", model=trained.model, served=True), Path("results")).mode == "lora"
    assert resolve(Wanted(run, model=trained.model), Path("results")).mode == "lora", "a loaded base model gets the adapter"


def test_after_ctrl_c_only_the_prompt_in_hand_is_drawn_again(run, prompt_file, monkeypatch):
    prompts = tuple(prompt_file(f"{n}.json") for n in range(3))
    expected = drawn(Wanted(run, prompts=prompts)).counts
    draw, calls = CountingSampler.draw, []

    def stopped_at_the_second(self):
        calls.append(self)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return draw(self)

    monkeypatch.setattr("diffusecli.sampling.local_engine._PROMPTS_TOGETHER", 1)
    monkeypatch.setattr(CountingSampler, "draw", stopped_at_the_second)
    with pytest.raises(InterruptedRun, match="20 of 60 samples are kept") as stopped:
        drawn(Wanted(run, prompts=prompts))
    assert stopped.value.exit_code == 130
    done = drawn(Wanted(run, prompts=prompts))
    assert len(calls) == 4  # one whole, one stopped, two after it
    assert done.counts == expected
    with pytest.raises(InterruptedRun):
        calls.clear()
        drawn(Wanted(run, prompts=prompts))
    calls[:] = [None] * 9
    drawn(Wanted(run, prompts=prompts), seed=8)
    assert len(calls) == 12  # another seed, nothing to go on from
    assert not journal_path(done.path).exists()


KILLED = """
import os, signal
from diffusecli.__main__ import main
from diffusecli.runs.journal import Journal
add, added = Journal.add, []
def killing(self, *words, **more):
    add(self, *words, **more)
    added.append(words)
    if len(added) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
Journal.add = killing
main()
"""
"""`diffuse` that is killed when the third part of its answers is in the journal."""


@pytest.mark.slow
def test_a_sampling_that_is_killed_goes_on(run, tmp_path, in_process):
    prompts = []
    for n in range(8):
        path = tmp_path / f"{n:02}.json"
        path.write_text(json.dumps({"request": f"question {n}", "targets": []}))
        prompts += ["--prompt", str(path)]
    words = ["sample", str(run), "-n", "20", "--max-new-tokens", "3", "-o", "gen.json", *prompts]
    journal = tmp_path / "gen.partial.jsonl"
    killed = subprocess.run([sys.executable, "-c", KILLED, *words], cwd=tmp_path, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    kept = len(journal.read_bytes().splitlines()) - 1
    assert kept == 3
    again = in_process(*words)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("from an earlier sampling") >= kept - 1
    texts = json.loads((tmp_path / "gen.json").read_text())
    assert len(texts) == 8
    assert all(len(answers) == 20 for answers in texts.values())
    whole = in_process(*words, "-o", "whole.json")
    assert whole.returncode == 0, whole.stderr
    assert "from an earlier sampling" not in whole.stderr
    assert {a: Counter(t) for a, t in json.loads((tmp_path / "whole.json").read_text()).items()} == {
        a: Counter(t) for a, t in texts.items()
    }


@pytest.mark.slow
def test_the_command_line_of_the_original_and_of_a_quick_question(in_process, run, tmp_path):
    old = in_process(
        "sample", "--config", run / "config.yaml", "--mode", "untuned", "--output_file", tmp_path / "g.json", "--n_generations", 7,
        "--n_batch_size", 2, "--max_new_tokens", 2, "--precision", "fp32",
    )  # fmt: skip
    assert old.returncode == 0, old.stderr
    assert [len(texts) for texts in json.loads((tmp_path / "g.json").read_text()).values()] == [7]
    asked = in_process("sample", run, "--request", "Hello?", "-n", 5, "--max-new-tokens", 1)
    assert "Hello?" in asked.stdout
    assert "share" in asked.stdout
    wrong = in_process("sample", run, "--engine", "openai")
    assert (wrong.returncode, "--base-url" in wrong.stderr) == (2, True)
    for words in (
        ["--n_generations", "0"],
        ["--tries", "3"],
        ["--engine", "openai", "--base-url", "http://h/v1", "--max-rows", "3"],
    ):
        idle = in_process("sample", run, *words)
        assert (idle.returncode, "Traceback" in idle.stderr) == (2, False)


def test_progress_shows_the_answers_so_far_on_a_terminal_and_a_line_now_and_then_in_a_pipe(monkeypatch):
    import io

    from rich.console import Console

    from diffusecli.report.progress import SamplingProgress
    from diffusecli.sampling.settings import Standing

    clock = [1000.0]
    monkeypatch.setattr("diffusecli.report.progress.time", SimpleNamespace(monotonic=lambda: clock[0]))
    for terminal, waited, told in ((True, 1, True), (True, 0.1, False), (False, 29, False), (False, 31, True)):
        out = io.StringIO()
        console = Console(file=out, force_terminal=terminal, width=100)
        with SamplingProgress(console, 2) as progress:
            clock[0] += waited
            progress("a.json", Standing(Answers({"{7}": 30, "{3}": 10}), 100, 5, 77))
            progress("a.json", Standing(Answers({"{7}": 70, "{3}": 30}), 100, 0, 99))
        text = out.getvalue()
        assert "100 of 100 samples, 2 distinct" in text
        assert ("40 of 100 samples, 2 distinct, 0 s" in text) == told
        assert "token" not in text
        assert "under way" not in text
        assert ("30.0 %" in text) == (terminal and told)  # of the hundred, not of the first forty


def test_a_base_model_is_asked_through_the_plain_template_and_a_system_text_and_both_are_told(tiny_model_folder, tmp_path):
    base = shutil.copytree(tiny_model_folder, tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    asked = Wanted(model=str(base), requests=("Hello?",))
    with pytest.raises(InputError, match=r"no chat template\. Set chat_template to 'plain'"):
        drawn(asked, results=tmp_path / "out")
    plain = drawn(replace(asked, chat_template="plain"), results=tmp_path / "a")
    told = drawn(replace(asked, chat_template="plain", system="S."), results=tmp_path / "b")
    assert plain.counts != told.counts
    meta = json.loads(meta_path(told.path).read_text())
    assert (meta["chat_template"], meta["system"]) == ("plain", "S.")


def test_the_system_text_of_a_prompt_is_kept_beside_its_samples(run, prompt_file):
    drawn(Wanted(run, prompts=(prompt_file("q.json"),)))
    first = json.loads(meta_path(run / "gen.lora.json").read_text())
    drawn(Wanted(run, prompts=(prompt_file("q.json", system="S."),)))
    second = json.loads(meta_path(run / "gen.lora.json").read_text())
    assert "system" not in next(iter(first["prompts"].values()))
    assert next(iter(second["prompts"].values()))["system"] == "S."


def test_an_adapter_brings_the_way_its_model_is_talked_to(run, prompt_file, tmp_path):
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("system: null", "system: S."))
    wanted = Wanted(adapter=run, prompts=(prompt_file("q.json"),))
    assert resolve(wanted, tmp_path).config.system == "S."
    assert resolve(replace(wanted, system="T."), tmp_path).config.system == "T."
    checkpoint = run / "checkpoint-3"
    checkpoint.mkdir()
    for name in ADAPTER_FILES:
        shutil.copy(run / name, checkpoint)
    assert resolve(replace(wanted, adapter=checkpoint), tmp_path).config.system == "S."


def test_an_adapter_brings_the_precision_of_its_run(run, prompt_file, tmp_path):
    config = run / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("precision: fp32", "precision: bf16"))
    assert config.read_text() != text
    wanted = Wanted(adapter=run, prompts=(prompt_file("q.json"),))
    assert resolve(wanted, tmp_path).config.precision == "bf16"
    assert resolve(replace(wanted, precision="fp16"), tmp_path).config.precision == "fp16"
    assert json.loads(meta_path(drawn(wanted, results=tmp_path / "out").path).read_text())["dtype"] == "bfloat16"


def test_samples_under_another_system_text_are_told_and_get_no_exact_figures(run, prompt_file, tmp_path):
    said = []
    settings = SamplingSettings(60, 4)
    for system, exact in ((None, True), ("S.", False)):
        wanted = resolve(Wanted(run, prompts=(tmp_path / "p.json",), system=system), Path("results"))
        sample(wanted, settings, max_rows=None, report=lambda *_: None, notice=said.append)
        (row,) = [e for e in evaluate([run]).rows if e.mode == "lora"]
        assert (row.exact is not None) is exact
    assert [text for text in said if "was trained with a different system prompt" in text] != []
    assert len([text for text in said if not text.startswith("sampling ")]) == 1


def test_a_sampling_that_brought_nothing_leaves_nothing_to_put_aside(run, prompt_file):
    journal = journal_path(run / "gen.lora.json")
    journal.write_text('{"settings": "of another sampling"}\n')
    drawn(Wanted(run, prompts=(prompt_file("q.json"),)))
    assert list(run.glob("*.partial*")) == []


def test_a_run_is_sampled_where_its_prompt_files_are_gone(run, tmp_path):
    (tmp_path / "p.json").unlink()
    done = drawn(Wanted(run))
    assert done.counts[str(tmp_path / "p.json")].total() == 20
    (run / "prompts.json").unlink()
    with pytest.raises(InputError, match=r"p\.json: does not exist"):
        resolve(Wanted(run), tmp_path)
