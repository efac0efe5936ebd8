"""The base model of an adapter: the same weights by another path or name are the same, and `--model` names them in every command."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from diffusecli.models.adapters import ADAPTER_FILES
from diffusecli.models.builtin import BUILTIN_MODELS, builtin_folder
from diffusecli.models.identity import fingerprint_of, has_weights_of
from diffusecli.models.loading import load_model
from diffusecli.models.lora import load_adapter
from diffusecli.models.source import ModelSource
from diffusecli.runs.run_dir import RunDir
from diffusecli.sampling.settings import SamplingSettings
from diffusecli.system.errors import InputError
from diffusecli.verbs.evaluate import Question, evaluate
from diffusecli.verbs.sample import Wanted, resolve, sample
from diffusecli.verbs.train import train
from tests.models.test_ggufs import MERGES, write_gguf
from tests.tiny import byte_tokenizer, tiny_llama
from tests.verbs.test_resume import config, interrupted, prompts  # noqa: F401 (fixtures)


@pytest.fixture
def run(trained):
    return RunDir(Path(trained.output_dir))


@pytest.fixture
def moved(tiny_model_folder, tmp_path):
    """The tiny model in another folder."""
    return shutil.copytree(tiny_model_folder, tmp_path / "moved")


@pytest.fixture
def other(tmp_path):
    """Other weights of the same shape."""
    tiny_llama(seed=9).save_pretrained(tmp_path / "other")
    byte_tokenizer().save_pretrained(tmp_path / "other")
    return tmp_path / "other"


def change_json(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def drawn(wanted, results="results"):
    notices = []
    resolved = resolve(wanted, Path(results))
    done = sample(resolved, SamplingSettings(5, 3), max_rows=None, report=lambda *_: None, notice=notices.append)
    return done, resolved.message, notices


def loaded(path):
    return load_model(ModelSource(str(path), device="cpu"), print)


# which weights they are


def test_the_path_to_a_folder_is_no_part_of_what_it_holds(tiny_model_folder, moved, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(moved)
    monkeypatch.chdir(tmp_path)
    found = {loaded(path).revision for path in (tiny_model_folder, moved, f"{moved}/", "moved", "./moved", tmp_path / "link")}
    assert len(found) == 1


def test_what_loading_and_saving_add_is_no_part_of_it(moved):
    before = fingerprint_of(moved)
    change_json(
        moved / "config.json", _name_or_path="/far/away", transformers_version="4.0", torch_dtype="float16", dtype=None, use_cache=False,
        _attn_implementation="sdpa",
    )  # fmt: skip
    (moved / "consolidated.safetensors").write_bytes(b"of another program")
    weights = load_file(moved / "model.safetensors")
    first = dict(list(weights.items())[:5])
    for name, part in (("a", first), ("b", {key: weight for key, weight in weights.items() if key not in first})):
        save_file(part, moved / f"{name}.safetensors", {"written by": "somebody else"})
    index = {key: "a.safetensors" if key in first else "b.safetensors" for key in weights}
    (moved / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (moved / "model.safetensors").unlink()
    assert fingerprint_of(moved) == before


@pytest.mark.parametrize(
    "setting", [{"rms_norm_eps": 1e-5}, {"rope_parameters": {"rope_theta": 1e4, "rope_type": "linear", "factor": 2}}]
)
def test_settings_that_change_what_the_weights_compute_are_part_of_it(moved, setting):
    before = fingerprint_of(moved)
    change_json(moved / "config.json", **setting)
    assert fingerprint_of(moved) != before


@pytest.mark.parametrize("tensor", range(0, 20, 3))
def test_every_tensor_is_part_of_it(moved, tensor):
    before, path = fingerprint_of(moved), moved / "model.safetensors"
    weights = load_file(path)
    weights[sorted(weights)[tensor]].view(-1)[-1] += 1
    save_file(weights, path, {"format": "pt"})
    assert fingerprint_of(moved) != before


def test_a_gguf_file_is_the_same_under_another_name_and_beside_others(tmp_path):
    model = tiny_llama(vocabulary=259 + len(MERGES))
    (tmp_path / "a").mkdir()
    write_gguf(tmp_path / "a" / "m.gguf", model)
    here = loaded(tmp_path / "a" / "m.gguf").revision
    shutil.copy(tmp_path / "a" / "m.gguf", tmp_path / "n.gguf")
    write_gguf(tmp_path / "else.gguf", tiny_llama(seed=3, vocabulary=259 + len(MERGES)))
    assert loaded(tmp_path / "n.gguf").revision == here
    assert loaded(tmp_path / "else.gguf").revision != here


def test_the_built_in_model_is_the_same_by_its_folder_or_a_copy_of_it(tiny_model_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSE_CACHE", str(tmp_path / "cache"))
    (name,) = BUILTIN_MODELS
    shutil.copytree(tiny_model_folder, builtin_folder(name))
    by_name = loaded(name)
    for path in (builtin_folder(name), shutil.copytree(builtin_folder(name), tmp_path / "copy")):
        assert loaded(path).has_weights_of(by_name.recorded)
        assert by_name.has_weights_of(loaded(path).recorded)
        assert by_name.has_weights_of({"model": str(path), "model_revision": fingerprint_of(path)})
        assert has_weights_of(str(path), by_name.recorded)
        assert has_weights_of(name, {"model_revision": by_name.revision})


def test_a_model_of_the_hub_is_the_same_in_its_cache_and_in_a_folder(tiny_model_folder, moved, tmp_path, monkeypatch):
    commit = "0123456789" * 4
    repository = tmp_path / "hub" / "models--owner--name"
    snapshot = repository / "snapshots" / commit
    shutil.copytree(tiny_model_folder, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    by_id = loaded("owner/name")
    assert by_id.revision == commit
    assert loaded(snapshot).revision == commit
    assert loaded(moved).has_weights_of(by_id.recorded)
    assert by_id.has_weights_of(loaded(moved).recorded)
    assert by_id.has_weights_of({"model": str(snapshot), "model_revision": fingerprint_of(snapshot)})
    assert not by_id.has_weights_of({"model": "owner/name", "model_revision": commit[::-1]})
    earlier = earlier_fingerprint(tmp_path / "refs", "owner/name", by_id)
    assert by_id.has_weights_of({"model": "owner/name", "model_revision": earlier}), "of the config alone, as it was then"


# runs of earlier versions


def earlier_fingerprint(folder, called, base):
    """As it was computed before: with the path in it."""
    settings = base.model.config.to_dict() | {"_name_or_path": str(called)}
    settings = {key: value for key, value in settings.items() if key not in ("dtype", "torch_dtype", "transformers_version")}
    found = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for path in sorted(folder.glob("*.safetensors")):
        content = path.read_bytes()
        found.update(f"{path.name} {len(content)}".encode() + content[:1_000_000] + content[-1_000_000:])
    return f"fingerprint sha256 {found.hexdigest()}"


@pytest.fixture
def old_run(run, tiny_model_folder):
    manifest = json.loads(run.manifest.read_text())
    del manifest["model_fingerprint"]
    manifest["model_revision"] = earlier_fingerprint(tiny_model_folder, manifest["model"], loaded(tiny_model_folder))
    run.manifest.write_text(json.dumps(manifest))
    return run


@pytest.mark.parametrize("mode", ["lora", "untuned"])
def test_a_run_with_an_earlier_fingerprint_is_sampled_and_evaluated(old_run, mode):
    done, _, _ = drawn(Wanted(old_run.path, mode))
    assert done.path.parent == old_run.path
    assert [(row.mode, row.tally.n) for row in evaluate([old_run.path]).rows] == [(mode, 5)]


def test_a_run_with_an_earlier_fingerprint_knows_its_base_where_it_was_moved_to(old_run, moved, other):
    drawn(Wanted(old_run.path, model=str(moved)))
    assert len(evaluate([old_run.path], Question(exact=True, model=str(moved))).rows) == 2
    with pytest.raises(InputError, match="was trained on other weights"):
        drawn(Wanted(old_run.path, model=str(other)))


def test_an_interrupted_training_goes_on_with_its_model_in_another_place(config, interrupted, moved, other):  # noqa: F811
    interrupted(config("cut"), 5)
    with pytest.raises(InputError, match="contains an interrupted run with different settings: model"):
        train(config("cut", model=str(other)), report=lambda _: None, notice=lambda _: None)
    again = train(config("cut", model=str(moved)), report=lambda _: None, notice=lambda _: None)
    whole = train(config("whole"), report=lambda _: None, notice=lambda _: None)
    assert again.run.adapter_sha256 == whole.run.adapter_sha256


# naming the base


def test_a_run_with_a_named_base_is_its_adapter_on_that_base(run, moved):
    done, told, notices = drawn(Wanted(run.path, model=str(moved)))
    assert done.path == run.path / "gen.lora.json"
    assert told == f"sampling {moved} (tuned, adapter {run.path}) as in run {run.path}"
    assert any("has the same weights" in notice for notice in notices)
    before = done.counts
    assert drawn(Wanted(run.path))[0].counts == before
    assert [row.mode for row in evaluate([run.path]).rows] == ["lora"]


def test_untuned_of_a_named_base_is_the_runs_own_where_it_is_its_base(run, moved, other):
    done, told, _ = drawn(Wanted(run.path, "untuned", model=str(moved)))
    assert (done.path, told) == (run.path / "gen.untuned.json", f"sampling {moved} (untuned) as in run {run.path}")
    done, _, _ = drawn(Wanted(run.path, "untuned", model=str(other)), run.path.parent)
    assert done.path == run.path.parent / "other" / "gen.untuned.json"


def test_a_named_base_with_other_weights_is_refused_and_nothing_is_written(run, other):
    before = sorted(run.path.iterdir())
    with pytest.raises(InputError, match="was trained on other weights"):
        drawn(Wanted(run.path, model=str(other)))
    assert sorted(run.path.iterdir()) == before


def test_a_run_without_an_adapter_is_not_sampled_untuned_in_silence(run, moved):
    (run.path / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match="or use --mode untuned"):
        resolve(Wanted(run.path, model=str(moved)), Path("results"))


def test_a_config_with_a_named_base_is_the_config_with_that_model(trained, run, moved, tmp_path):
    text = run.config.read_text()
    (tmp_path / "c.yaml").write_text(text)
    assert resolve(Wanted(tmp_path / "c.yaml", model=str(moved)), Path("results")).path == run.path / "gen.lora.json"
    (tmp_path / "c.yaml").write_text(text.replace(str(run.path), f"{run.path.parent}/{{model}}"))
    run.path.rename(run.path.parent / "moved")
    found = resolve(Wanted(tmp_path / "c.yaml", model=str(moved)), Path("results"))
    assert (found.path, found.config.model) == (run.path.parent / "moved" / "gen.lora.json", str(moved))
    untuned = resolve(Wanted(tmp_path / "c.yaml", "untuned", model=str(moved)), Path("results"))
    assert untuned.path == run.path.parent / "moved" / "gen.untuned.json"


def test_what_the_server_calls_a_model_is_no_base(run):
    found = resolve(Wanted(run.path, model="gpt", served=True), Path("results"))
    assert (found.path, found.served_name, found.mode) == (run.path / "gen.lora.json", "gpt", "lora")
    assert resolve(Wanted(model="gpt", served=True, requests=("x",)), Path("results")).mode == "untuned"


def test_the_revision_of_the_runs_model_is_not_asked_of_another(run):
    run.config.write_text(run.config.read_text().replace("revision: null", "revision: abc"))
    assert resolve(Wanted(run.path), Path("results")).config.revision == "abc"
    assert resolve(Wanted(run.path, model="owner/name"), Path("results")).config.revision is None


@pytest.fixture
def alone(run, tmp_path):
    """The adapter without its run; gets a name of its base."""

    def make(base):
        folder = tmp_path / "alone"
        folder.mkdir(exist_ok=True)
        for name in ADAPTER_FILES:
            shutil.copy(run.path / name, folder)
        change_json(folder / "adapter_config.json", base_model_name_or_path=base)
        return folder

    return make


@pytest.mark.parametrize("base", [None, "", "unsloth/tiny-bnb-4bit", "/gone/model"])
def test_an_adapter_alone_goes_on_the_base_that_is_named(run, alone, moved, tmp_path, base):
    done, _, notices = drawn(Wanted(adapter=alone(base), model=str(moved), requests=("x",)), tmp_path / "out")
    assert any(f"made for {base}" in notice and "has unknown weights" in notice for notice in notices) == bool(base)
    assert any("does not name its base model" in notice for notice in notices) == (not base)
    assert done.counts == drawn(Wanted(run.path, requests=("x",)))[0].counts


@pytest.mark.parametrize("base", [None, ""])
def test_an_adapter_that_names_no_base_asks_for_it(alone, tmp_path, base):
    with pytest.raises(InputError, match=r"does not name its base model\. Set it with --model"):
        resolve(Wanted(adapter=alone(base), requests=("x",)), tmp_path)


def test_the_base_of_a_run_is_not_taken_for_that_of_a_foreign_adapter(run, alone):
    with pytest.raises(InputError, match=r"made for other/model, not for .*\. Set its base model with --model"):
        drawn(Wanted(run.path, adapter=alone("other/model"), requests=("x",)), run.path.parent)


@pytest.mark.parametrize("shape", [{"hidden_size": 64}, {"num_hidden_layers": 1}])
def test_an_adapter_of_another_shape_is_refused(alone, tmp_path, shape):
    tiny_llama(**shape).save_pretrained(tmp_path / "shaped")
    byte_tokenizer().save_pretrained(tmp_path / "shaped")
    with pytest.raises(InputError, match=r"does not fit .*(size mismatch|match no layer).*--model"):
        load_adapter(loaded(tmp_path / "shaped"), alone(None))


def test_a_checkpoint_knows_the_weights_it_was_trained_on(config, interrupted, moved, other):  # noqa: F811
    interrupted(config("cut"), 7)
    checkpoint = max(Path(config("cut").output_dir).glob("checkpoint-*"))
    drawn(Wanted(adapter=checkpoint, model=str(moved), requests=("x",)), checkpoint.parent.parent)
    with pytest.raises(InputError, match="was trained on other weights"):
        drawn(Wanted(adapter=checkpoint, model=str(other), requests=("x",)), checkpoint.parent.parent)


def test_every_command_takes_the_base_by_name(in_process, run, alone, moved, tiny_model_folder, tmp_path):
    gone = str(tmp_path / "gone")
    run.config.write_text(run.config.read_text().replace(str(tiny_model_folder), gone))
    for words in (["sample", run.path, "-n", "3"], ["evaluate", run.path, "--exact"], ["export", run.path, "-o", "m"]):
        refused = in_process(*words)
        assert (refused.returncode, "If the run's base model was moved, set its path with --model" in refused.stderr) == (
            2,
            True,
        )
        assert in_process(*words, "--model", "moved").returncode == 0, words
    assert in_process("export", alone(None), "-o", "n").stderr.endswith("Set it with --model\n")
    assert in_process("export", alone(None), "-o", "n", "--model", "moved").returncode == 0
    weights = [load_file(tmp_path / folder / "model.safetensors") for folder in ("m", "n")]
    assert all(bool((weights[0][name] == weights[1][name]).all()) for name in weights[0])
    refused = in_process("evaluate", run.path, "--model", "moved")
    assert (refused.returncode, "--model has no effect without --exact" in refused.stderr) == (2, True)
    assert (in_process("sample", run.path, "--model", "").returncode, RunDir(tmp_path / "m").path.is_dir()) == (2, True)
