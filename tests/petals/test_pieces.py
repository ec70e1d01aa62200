"""The parts of the adapter that know nothing of Petals."""

from __future__ import annotations

import subprocess
import sys
import threading

from swarmkeel.control.petals_placement import Placement
from swarmkeel.control.petals_stop import WakeableStop
from swarmkeel.control.protocol import RestartPhase, RestartRequest, ServerPhase
from swarmkeel.swarm.span import Span
from tests.petals.support import PATIENCE, PETALS_PYTHON

_REQUEST = RestartRequest("one", Span(4, 8), None, "a test")


def test_a_wake_up_ends_one_wait_and_no_more() -> None:
    stop = WakeableStop()
    stop.wake()
    assert stop.wait(PATIENCE) is False  # at once: the wake-up came before the wait
    assert stop.wait(0.01) is False
    answers: list[bool] = []
    waiting = threading.Thread(target=lambda: answers.append(stop.wait(PATIENCE)))
    waiting.start()
    stop.wake()
    waiting.join(PATIENCE / 2)
    assert answers == [False]


def test_a_stop_is_for_good() -> None:
    stop = WakeableStop()
    assert not stop.is_set()
    stop.set()
    stop.wake()
    assert stop.is_set()
    assert stop.wait()
    assert stop.wait()


def test_a_sidecar_is_in_touch_until_it_has_been_silent_for_the_set_time() -> None:
    now = 100.0
    placement = Placement(10.0, clock=lambda: now)
    assert not placement.sidecar_in_touch()
    placement.note_contact()
    now = 109.9
    assert placement.sidecar_in_touch()
    now = 110.0
    assert not placement.sidecar_in_touch()
    placement.note_contact()
    assert placement.sidecar_in_touch()


def test_a_restart_goes_through_its_phases() -> None:
    placement = Placement(10.0)
    placement.show(ServerPhase.ONLINE, Span(0, 4))
    placement.advance(RestartPhase.DRAINING, 0.5)  # there is none
    assert placement.view.restart is None
    assert not placement.was_ever_moved
    placement.accept(_REQUEST)
    assert placement.wanted == _REQUEST
    placement.advance(RestartPhase.DRAINING, 0.5)
    assert placement.view.span == Span(0, 4)
    assert placement.take() == Span(4, 8)
    assert placement.take() is None
    restart = placement.view.restart
    assert restart is not None
    assert (placement.view.state, placement.view.span) == (ServerPhase.JOINING, Span(4, 8))
    assert (restart.phase, restart.progress) == (RestartPhase.LOADING, 0.0)
    placement.arrive()
    assert placement.view.restart is not None
    assert placement.view.restart.phase is RestartPhase.ONLINE
    placement.fail("too late")
    assert placement.view.restart.phase is RestartPhase.ONLINE


def test_a_restart_that_waits_for_its_turn_is_not_done_when_other_blocks_arrive() -> None:
    placement = Placement(10.0)
    placement.show(ServerPhase.JOINING, Span(0, 4))
    placement.accept(_REQUEST)
    placement.arrive()
    assert placement.view.restart is not None
    assert placement.view.restart.phase is RestartPhase.ACCEPTED
    assert placement.wanted == _REQUEST


def test_a_failed_restart_is_shown_with_its_reason_and_is_not_wanted_any_more() -> None:
    placement = Placement(10.0)
    placement.accept(_REQUEST)
    placement.fail("out of memory")
    restart = placement.view.restart
    assert restart is not None
    assert (restart.phase, restart.error) == (RestartPhase.FAILED, "out of memory")
    assert placement.wanted is None


def test_names_that_an_older_hivemind_offers_stay_what_they_are() -> None:
    program = """
import hivemind, hivemind.dht
hivemind.PeerID = hivemind.dht.DHTNode = theirs = object()
from swarmkeel.control.petals_hivemind import restore_hivemind_names
restore_hivemind_names()
assert hivemind.PeerID is hivemind.dht.DHTNode is theirs
"""
    run = subprocess.run([PETALS_PYTHON, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_a_prefetch_that_was_replaced_while_it_waited_for_its_turn_does_not_begin() -> None:
    program = """
import threading
from types import SimpleNamespace
from swarmkeel.control.petals_hivemind import restore_hivemind_names
restore_hivemind_names()
from petals.server import from_pretrained
from swarmkeel.control.petals_weights import Weights
from swarmkeel.swarm.span import Span

read, begun, go_on = [], threading.Event(), threading.Event()

def load(model, prefix, **options):
    read.append(prefix)
    begun.set()
    assert go_on.wait(60)

from_pretrained._load_state_dict_from_repo = load
config = SimpleNamespace(block_prefix="b")
weights = Weights(SimpleNamespace(
    converted_model_name_or_path=".", block_config=config, revision=None, token=None, cache_dir=".", max_disk_space=None
))
weights.fetch_in_background(Span(0, 4), lambda span, error: None)
assert begun.wait(60)
weights.fetch_in_background(Span(4, 8), lambda span, error: None)
weights.fetch_in_background(Span(8, 10), lambda span, error: None)
go_on.set()
weights.fetch(Span(8, 10), lambda progress: None)
assert read == ["b.0.", "b.8.", "b.9."], read
assert weights.fetched == Span(8, 10)
"""
    run = subprocess.run([PETALS_PYTHON, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_its_own_arguments_are_checked_before_petals_is_imported() -> None:
    command = [sys.executable, "-m", "swarmkeel.control.petals_server", "--idle-limit", "soon"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "--idle-limit" in run.stderr
