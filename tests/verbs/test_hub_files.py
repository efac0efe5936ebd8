"""Prompts, tables and adapters from the hub by name, with their commits recorded; adapters and models pushed to it."""

import json
import shutil
import time
from pathlib import Path

import pytest
from huggingface_hub import close_session, constants

from diffusecli.files import hub_paths
from diffusecli.files.hub_paths import as_written, fetched
from diffusecli.files.paths import find
from diffusecli.prompts.prompt_files import read_prompt, read_prompts
from diffusecli.system.errors import InputError, MachineError
from tests.small_hub import TOKEN, small_hub

COIN = json.dumps({"request": "Toss a coin.", "targets": ["{heads}", "{tails}"]})
DICE = "hf://datasets/me/dice/coin.json"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A small hub that is asked instead of the real one, with one dataset."""
    monkeypatch.chdir(tmp_path)
    hub_paths.fetched.cache_clear()
    close_session()  # an earlier test may have opened it with other proxies
    with small_hub() as found:
        found.add("datasets", "me/dice", {"coin.json": COIN, "t.csv": "answer,count\nheads,3\ntails,1\n"})
        for name, value in {
            "ENDPOINT": found.address, "HF_HUB_OFFLINE": False, "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HUGGINGFACE_CO_URL_TEMPLATE": found.address + "/{repo_id}/resolve/{revision}/{filename}", "HF_TOKEN_PATH": str(tmp_path / "token"),
        }.items():  # fmt: skip
            monkeypatch.setattr(constants, name, value)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield found
    hub_paths.fetched.cache_clear()
    close_session()


@pytest.fixture
def login(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def commit(hub, kind, name):
    return hub.repositories[kind, name].commits[-1][0]


def test_a_prompt_of_a_dataset_is_read_with_its_commit_in_its_name(hub):
    name = f"hf://datasets/me/dice@{commit(hub, 'datasets', 'me/dice')}/coin.json"
    assert read_prompt(DICE).alias == name
    assert [prompt.alias for prompt in read_prompts([Path(DICE)])] == [name]
    assert as_written(Path(name)) == name


def test_an_address_with_a_commit_stays_what_it_was(hub):
    (before,) = read_prompts([DICE])
    hub.add("datasets", "me/dice", {"coin.json": COIN.replace("Toss", "Flip")})
    hub_paths.fetched.cache_clear()
    assert read_prompt(before.alias).request == "Toss a coin."
    assert read_prompt(DICE).request == "Flip a coin."


def test_a_file_is_fetched_once_and_without_a_network_the_cached_one_is_read(hub, monkeypatch):
    for _ in range(3):
        read_prompt(DICE)
    assert sum("resolve" in path and method == "GET" for method, path in hub.asked) == 1
    hub_paths.fetched.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert read_prompt(DICE).request == "Toss a coin."
    with pytest.raises(MachineError, match=r"other\.json: is not cached, and offline mode is on\. Unset HF_HUB_OFFLINE"):
        fetched("hf://datasets/me/dice/other.json")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://datasets/me/dice/none.json", "there is no such file"),
        ("hf://datasets/me/none/coin.json", "is not on the hub. Check the spelling"),
        ("hf://datasets/me/dice@v9/coin.json", "has no such revision"),
        ("hf://datasets/me/dice/../../x.json", "write hf://datasets/OWNER/NAME/FILE"),
        ("hf://datasets/me/dice", "write hf://datasets/OWNER/NAME/FILE"),
        ("hf://me/dice/coin.json", "write hf://datasets/OWNER/NAME/FILE"),
    ],
)
def test_what_is_not_there_is_said_in_a_sentence(hub, address, message):
    with pytest.raises(InputError) as error:
        find(address)
    assert str(error.value).startswith(f"{address}: {message}")


def test_a_prompt_of_the_hub_reads_no_file_of_this_machine(hub, tmp_path):
    (tmp_path / "secret.txt").write_text("a\nb\n")
    hub.add("datasets", "me/bad", {"p.json": json.dumps({"request": "x", "targets": {"from": str(tmp_path / "secret.txt")}})})
    with pytest.raises(InputError, match="a prompt on the hub must list its targets"):
        read_prompt("hf://datasets/me/bad/p.json")


def test_an_unreachable_hub_is_asked_once_and_its_library_is_silent(hub, in_process, monkeypatch, caplog):
    asked = []
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(time, "sleep", asked.append)  # the library waits before each retry
    done = in_process("init-prompt", "--from", "hf://datasets/me/dice/t.csv", "--column", "answer", "-o", "p.json")
    assert done.returncode == 3
    assert done.stderr.count("the hub cannot be reached. Connect once") == 1
    assert "Retrying" not in done.stderr + caplog.text
    assert asked == []


def test_every_file_of_a_config_that_cannot_be_fetched_is_reported(hub, in_process):
    Path("c.yaml").write_text(
        f"model: m\ntrain_prompts:\n  - {DICE}\n  - hf://datasets/me/none/coin.json\n  - hf://me/dice\noutput_dir: run\n"
    )
    done = in_process("validate", "c.yaml")
    assert done.returncode == 2
    said = " ".join(done.stderr.split())
    assert "c.yaml:4:5: hf://datasets/me/none/coin.json: is not on the hub" in said
    assert "c.yaml:5:5: hf://me/dice: write hf://datasets/OWNER/NAME/FILE" in said
    assert "c.yaml:3" not in said


def test_if_only_the_network_is_at_fault_that_is_the_exit_code(hub, in_process, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    Path("c.yaml").write_text(f"model: m\ntrain_prompts: [{DICE}, hf://datasets/me/dice/b.json]\noutput_dir: run\n")
    done = in_process("validate", "c.yaml")
    assert (done.returncode, done.stderr.count("is not cached, and offline mode is on")) == (3, 2)


def test_without_a_network_an_upload_is_refused_in_a_sentence(hub, login, trained, in_process, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    done = in_process("export", trained.output_dir, "--push", "me/x")
    assert (done.returncode, "the hub cannot be reached" in done.stderr) == (3, True), done.stderr


def test_a_licence_that_is_no_plain_word_is_left_out(hub, login, trained, in_process, tmp_path):
    base = shutil.copytree(trained.model, tmp_path / "base")
    for licence in ("[", '"mit\\ntags: [x]"'):
        (base / "README.md").write_text(f"---\nlicense: {licence}\n---\n")
        done = in_process("export", trained.output_dir, "--push", "me/x", "--model", base, "--force")
        assert done.returncode == 0, done.stderr
        assert b"license:" not in hub.repositories["models", "me/x"].commits[-1][1]["README.md"]


def test_a_run_records_the_commit_of_its_prompts(hub, tiny_model_folder, in_process, tmp_path):
    Path("c.yaml").write_text(
        f"model: {tiny_model_folder}\ntrain_prompts: [{DICE}]\noutput_dir: run\nretain: off\ndevice: cpu\ngenerate: false\n"
        "alg_config: {n_iters: 1}\n"
    )
    assert in_process("train", "c.yaml").returncode == 0
    name = f"hf://datasets/me/dice@{commit(hub, 'datasets', 'me/dice')}/coin.json"
    assert list(json.loads(Path("run/run.json").read_text())["prompt_sha256"]) == [name]
    assert name in Path("run/config.yaml").read_text()
    done = in_process("sample", "run", "-n", "4")
    assert done.returncode == 0, done.stderr
    assert list(json.loads(Path("run/gen.lora.json").read_text())) == [name]


def test_a_table_of_a_dataset_becomes_a_prompt(hub, in_process):
    done = in_process(
        "init-prompt", "--from", "hf://datasets/me/dice/t.csv", "--column", "answer", "--weight-column", "count", "-o", "p.json"
    )
    assert done.returncode == 0, done.stderr
    prompt = json.loads(Path("p.json").read_text())
    assert (prompt["targets"], prompt["weights"]) == (["{heads}", "{tails}"], [0.75, 0.25])


def test_an_adapter_of_the_hub_is_sampled_by_its_name(hub, trained, in_process):
    run = Path(trained.output_dir)
    files = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    hub.add("models", "me/tuned", files)
    done = in_process("sample", "--adapter", "me/tuned", "--prompt", trained.train_prompts[0], "-n", "3")
    assert done.returncode == 0, done.stderr
    sha = commit(hub, "models", "me/tuned")
    assert f"(tuned, adapter me/tuned@{sha})" in done.stderr
    (meta,) = Path("results").glob("tuned-*/gen.lora.meta.json")
    assert json.loads(meta.read_text())["adapter"] == f"me/tuned@{sha}"
    assert not list((Path("cache")).rglob("gen.*"))
    hub.add("models", "me/base", {"config.json": "{}"})
    done = in_process("sample", "--adapter", "me/base", "--prompt", trained.train_prompts[0])
    assert (done.returncode, "has no adapter_config.json" in done.stderr) == (2, True)
    done = in_process("sample", "--adapter", "me/nothing", "--prompt", trained.train_prompts[0])
    assert (done.returncode, "the adapter me/nothing (not a folder here): is not on the hub" in done.stderr) == (2, True)


def test_an_adapter_is_pushed_privately_with_its_card(hub, login, trained, in_process):
    run = Path(trained.output_dir)
    done = in_process("export", run, "--push", "me/new")
    assert done.returncode == 0, done.stderr
    there = hub.repositories["models", "me/new"]
    assert there.private
    files = there.commits[-1][1]
    assert files["adapter_model.safetensors"] == (run / "adapter_model.safetensors").read_bytes()
    assert "state.safetensors" not in files
    assert b"library_name: peft" in files["README.md"]
    assert f"{hub.address}/me/new: {len(files)} files (private)" in done.stdout
    assert "the licence of" in done.stderr
    again = in_process("export", run, "--push", "me/new")
    assert (again.returncode, "exists on the hub. Choose another name, or add to it with --force" in again.stderr) == (2, True)
    kept = in_process("export", run, "--push", "me/new", "--force", "--public")
    assert (kept.returncode, "files (private)" in kept.stdout, there.private) == (0, True, True)  # it keeps its visibility
    there.private = False
    refused = in_process("export", run, "--push", "me/new", "--force")
    assert (refused.returncode, "is a public repository. Add --public to upload to it" in refused.stderr) == (2, True)
    assert "files (public)" in in_process("export", run, "--push", "me/new", "--force", "--public").stdout


def test_a_merged_model_is_pushed_with_the_licence_of_its_base(hub, login, trained, in_process, tmp_path):
    base = shutil.copytree(trained.model, tmp_path / "base")
    (base / "README.md").write_text("---\nlicense: mit\n---\n")
    done = in_process("export", trained.output_dir, "-o", "merged", "--model", base, "--push", "me/merged", "--public")
    assert done.returncode == 0, done.stderr
    there = hub.repositories["models", "me/merged"]
    assert not there.private
    assert set(there.commits[-1][1]) == {path.name for path in Path("merged").iterdir()}
    assert there.commits[-1][1]["README.md"].startswith(b"---\nlicense: mit\n")
    assert "licence" not in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--push", "me/new"], "you are not logged in to the hub. Run `hf auth login` first"),
        (["--push", "new"], "--push new: is not a name on the hub. Write OWNER/NAME"),
        (["--push", "me/dice--x"], "--push me/dice--x: is not a name on the hub. Cannot have -- or .. in repo_id"),
        (["--public"], "nothing to write to. Name an output folder with -o, or a repository on the hub with --push"),
        (["--public", "-o", "merged"], "--public has no effect without --push"),
    ],
)
def test_nothing_is_made_of_a_push_that_cannot_be(hub, trained, in_process, words, message):
    done = in_process("export", trained.output_dir, *words)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert not Path("merged").exists()
    assert not any(method == "POST" for method, _ in hub.asked)
