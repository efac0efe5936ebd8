"""One writer at a time; scratch files of writers that were killed go, those of living ones stay."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffusecli.files.locks import lock_beside, only_writer, remove_scratch_folders, require_idle, scratch_file, turn
from diffusecli.files.writing import atomic_write, write_text
from diffusecli.prompts.config_files import read_config
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.errors import InputError, MachineError
from diffusecli.verbs.train import train

HOLDS = "import sys; from pathlib import Path; from diffusecli.files.locks import only_writer\nplace = Path(sys.argv[1])\n"


@pytest.fixture
def held_elsewhere(tmp_path):
    """Another process that holds the lock of a run directory; gives the process."""
    words = [
        sys.executable,
        "-c",
        HOLDS + "with only_writer(place, place / '.lock'):\n    print('held', flush=True); sys.stdin.read()",
    ]
    with subprocess.Popen([*words, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_process_is_refused_and_a_killed_one_blocks_nobody(tmp_path, held_elsewhere):
    lock = RunDir(tmp_path).lock
    with pytest.raises(InputError, match=r"another process is writing it\. Wait until it is done"), only_writer(tmp_path, lock):
        pass
    with pytest.raises(InputError, match="another process is writing it"):
        require_idle(tmp_path, lock)
    held_elsewhere.kill()
    held_elsewhere.wait()
    assert lock.exists(), "a killed process leaves its lock file"
    require_idle(tmp_path, lock)
    with only_writer(tmp_path, lock):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_second_training_into_the_same_folder_is_refused(trained, tmp_path):
    run = RunDir(Path(trained.output_dir))
    with only_writer(run.path, run.lock), pytest.raises(InputError, match="r1: another process is writing it"):
        train(trained, report=lambda _: None, notice=lambda _: None, force=True)
    assert run.has_adapter
    assert not run.lock.exists()
    assert read_config(run.config).seed == 7


def test_a_lock_that_cannot_be_made_is_an_error_of_the_machine(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match=f"^{tmp_path}: cannot be written"), only_writer(tmp_path, tmp_path / "file" / ".lock"):
        pass


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("mine")
    (tmp_path / ".lock").symlink_to(tmp_path / "victim")
    with pytest.raises(MachineError, match="cannot be written"), only_writer(tmp_path, tmp_path / ".lock"):
        pass
    assert (tmp_path / "victim").read_text() == "mine"


def test_what_a_killed_writer_left_goes_with_the_next_write_and_a_living_one_is_left_alone(tmp_path):
    path = tmp_path / "odd [name]*.json"
    dead = tmp_path / f".{path.name}.abcdefgh.tmp"
    dead.write_text("half")
    other = tmp_path / ".other.json.abcdefgh.tmp"
    other.write_text("of another file")
    with atomic_write(path) as file:
        file.write("first")
        living = [p for p in tmp_path.glob(".odd*") if p != dead]
        assert len(living) == 1
        assert not dead.exists()
        write_text(path, "second")
        assert living[0].exists(), "the writer that is under way keeps its scratch file"
    assert path.read_text() == "first"
    assert sorted(p.name for p in tmp_path.iterdir()) == [other.name, path.name]


def test_scratch_folders_that_killed_processes_left_go_and_nothing_else(tmp_path):
    names = [".odd [x]*.export.abc", ".odd [x]*.part.abc", ".odd [x]*.other.abc", ".odd x.export.abc", "mine"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("")
    (tmp_path / ".odd [x]*.export.link").symlink_to(tmp_path / "mine")
    remove_scratch_folders(tmp_path, ".odd [x]*.export.", ".odd [x]*.part.")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names[2:], ".odd [x]*.export.link"])
    assert (tmp_path / "mine" / "file").exists()


def test_a_turn_lasts_until_those_who_inherited_it_have_ended(tmp_path):
    lock_file = tmp_path / ".lock"
    with turn(lock_file) as first, turn(lock_file) as second:
        assert second is None
        assert first.alone
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[first.lock_fd])
        alone = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with turn(lock_file) as second:
        assert second is None, "the process that began is gone, the one it started is not"
    waited = []
    with turn(lock_file, lambda: waited.append(child.communicate(b"\n"))) as second:
        assert second.alone
        assert len(waited) == 1, "it says once that it waits"
        assert alone.poll() is None, "one that inherited nothing holds nothing"
    alone.communicate(b"\n")


def test_on_a_disk_without_locks_nobody_is_alone(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with turn(tmp_path / ".lock") as first, turn(tmp_path / ".lock") as second:
        assert (first.alone, second.alone) == (False, False)


def test_scratch_files_are_private_until_they_are_whole(tmp_path):
    before = os.umask(0)
    try:
        descriptor, scratch = scratch_file(tmp_path / "f")
        os.close(descriptor)
        assert scratch.stat().st_mode & 0o777 == 0o600
        with atomic_write(tmp_path / "g") as file:
            assert os.fstat(file.fileno()).st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


def test_the_lock_of_a_file_lies_beside_it(tmp_path):
    assert lock_beside(tmp_path / "a.json") == tmp_path / ".a.json.lock"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_on_a_disk_without_locks_everything_but_exclusion_works(tmp_path, monkeypatch, number):
    def unknown(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", unknown)
    for text in ("first", "second"):
        write_text(tmp_path / "f", text)
    with only_writer(tmp_path, tmp_path / ".lock"), only_writer(tmp_path, tmp_path / ".lock"):
        require_idle(tmp_path, tmp_path / ".lock")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_text() == "second"


def test_a_lock_whose_file_was_removed_meanwhile_guards_nothing(tmp_path, monkeypatch):
    lock, flock = tmp_path / ".lock", fcntl.flock

    def slow(descriptor, how):
        monkeypatch.setattr(fcntl, "flock", flock)
        lock.unlink()  # its holder ends between our opening and our locking
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", slow)
    with only_writer(tmp_path, lock):
        assert lock.exists(), "the lock is one that others see"
        with pytest.raises(InputError), only_writer(tmp_path, lock):
            pass
