"""The garbage collector is out of the way while much is made, and as it was before afterwards."""

import gc
import weakref

import pytest

from diffusecli.system.collector import collector_off, skip_last_collection


class Thing:
    pass


@pytest.fixture(autouse=True)
def on_afterwards():
    yield
    gc.unfreeze()
    gc.enable()


def a_circle():
    thing = Thing()
    thing.itself = thing
    return weakref.ref(thing)


def test_it_is_off_inside_and_on_afterwards_also_after_an_error():
    with pytest.raises(ZeroDivisionError), collector_off():
        assert not gc.isenabled()
        1 / 0  # noqa: B018
    assert gc.isenabled()


def test_where_it_was_off_it_stays_off():
    gc.disable()
    with collector_off():
        pass
    assert not gc.isenabled()


def test_what_is_made_inside_is_old_afterwards_and_what_nobody_needs_is_freed_by_a_full_run():
    with collector_off():
        kept, lost = Thing(), a_circle()
    assert any(one is kept for one in gc.get_objects(generation=2))
    gc.collect(1)
    assert lost() is not None
    gc.collect()
    assert lost() is None


def test_objects_that_a_program_keeps_from_the_collector_are_kept():
    gc.freeze()
    before = gc.get_freeze_count()
    with collector_off():
        pass
    assert gc.get_freeze_count() >= before - 100 > 0  # some are freed by their reference counts


def test_processes_that_a_launcher_started_end_with_a_last_collection(monkeypatch):
    """Threads of their connections must be joined: left to the end of the process they abort it."""
    frozen = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(1))
    monkeypatch.setenv("WORLD_SIZE", "2")
    skip_last_collection()
    assert frozen == []
    monkeypatch.delenv("WORLD_SIZE")
    skip_last_collection()
    assert frozen == [1]
