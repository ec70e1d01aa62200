"""What a steered server does at moments that no swarm brings about on demand. Prints, as JSON, what failed of each case.

Everything is Petals' and the adapter's but the blocks: no server is started, so that every case is over at once.
"""

import json
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

from swarmkeel.control.petals_hivemind import restore_hivemind_names
from swarmkeel.control.petals_placement import Placement
from swarmkeel.control.petals_stop import WakeableStop
from swarmkeel.control.protocol import PrefetchRequest, RestartPhase, RestartRequest, ServerPhase
from swarmkeel.control.server import Refused
from swarmkeel.swarm.span import Span

restore_hivemind_names()

from petals.data_structures import ServerState  # noqa: E402 - hivemind's names come first
from petals.server import from_pretrained  # noqa: E402 - as above
from petals.server import server as petals_own  # noqa: E402 - as above
from petals.server.server import Server  # noqa: E402 - as above

from swarmkeel.control.petals_container import ModuleContainer, NotServingError  # noqa: E402 - as above
from swarmkeel.control.petals_steering import SteeredServer, SteeringOptions  # noqa: E402 - as above
from swarmkeel.control.petals_weights import RetryLimit, Weights, WeightsUnavailableError  # noqa: E402 - as above

PRESENT, WANTED = Span(0, 4), Span(4, 8)
REQUEST = RestartRequest("one", WANTED, None, "a test", drain_seconds=600.0)


def steered(socket: str = "unused.sock") -> Any:
    """Give a server that serves, without its DHT node and its blocks."""
    server = SteeredServer.__new__(SteeredServer)
    server._options = SteeringOptions(
        socket, idle_limit=600.0, sidecar_lost_after=600.0, start_limit=600.0, prefetch=False
    )
    server._placement = Placement(600.0)
    server._placement.show(ServerPhase.ONLINE, PRESENT)
    server._served, server._fallback, server._container = PRESENT, None, None
    server._has_failed = server._rebalances = server._is_first_choice = False
    server.stop = WakeableStop()
    server.strict_block_indices = None
    server._clean_memory_and_fds = lambda: None
    return server


def raised(kind: type[BaseException], action: Callable[[], object]) -> Any:
    try:
        action()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} was raised")


def a_stop_ends_the_wait_for_the_sidecars_choice() -> None:
    server = steered()
    server.stop.set()
    raised(KeyboardInterrupt, lambda: server._wait_for_sidecar(600.0))


def a_stop_ends_a_drain() -> None:
    server, said = steered(), list[ServerState]()
    server._container = SimpleNamespace(
        conn_handlers=[
            SimpleNamespace(open_sessions=SimpleNamespace(value=1), refuses_sessions=SimpleNamespace(value=0))
        ],
        dht_announcer=SimpleNamespace(announce=said.append),
    )
    server._placement.accept(REQUEST)
    server.stop.set()
    assert server._leave_for(REQUEST)
    assert said == [ServerState.JOINING]
    assert server._container.conn_handlers[0].refuses_sessions.value == 1


def a_server_that_is_about_to_end_refuses_to_restart() -> None:
    server = steered()
    server.stop.set()
    assert raised(Refused, lambda: server.restart(REQUEST)).status == 503
    assert server._placement.wanted is None


def a_pinned_server_refuses_to_restart() -> None:
    server = steered()
    server.strict_block_indices = [0, 1]
    assert raised(Refused, lambda: server.restart(REQUEST)).status == 409
    assert server._placement.wanted is None


def a_server_that_loads_refuses_to_prefetch() -> None:
    server = steered()
    server._placement.show(ServerPhase.JOINING, PRESENT)
    assert raised(Refused, lambda: server.prefetch(PrefetchRequest("one", WANTED))).status == 409


def without_a_sidecar_petals_own_rule_decides() -> None:
    server = steered()
    Server._should_choose_other_blocks = lambda self: False
    assert not server._should_choose_other_blocks()
    assert server._placement.view.state is ServerPhase.ONLINE
    Server._should_choose_other_blocks = lambda self: True
    assert server._should_choose_other_blocks()
    assert (server._placement.view.state, server._fallback) == (ServerPhase.STOPPING, PRESENT)


def blocks_that_are_loaded_before_any_are_shown_show_no_progress() -> None:
    server = steered()
    server._placement = Placement(600.0)
    server._load_petals_block = lambda model, index, **options: (model, index)
    assert server._load_block("model", 3) == ("model", 3)
    assert server._placement.view.restart is None


def a_failure_before_any_move_ends_the_server_as_it_ends_petals(socket: str) -> None:
    server = steered(socket)

    def fail(_: object) -> None:
        raise RuntimeError("out of memory")

    Server.run = fail
    assert str(raised(RuntimeError, server.run)) == "out of memory"


def a_failed_move_takes_its_announcements_back_and_is_shown() -> None:
    server, said, over = steered(), list[ServerState](), threading.Event()

    class Announcer(threading.Thread):
        announce = staticmethod(said.append)

    petals_own.ModuleAnnouncerThread = Announcer
    announcer = Announcer(target=over.wait)
    announcer.start()
    try:
        server._placement.accept(REQUEST)
        server._placement.take()
        server._fallback = PRESENT
        server._give_up_blocks("RuntimeError: out of memory")
    finally:
        over.set()
        announcer.join()
    assert said == [ServerState.OFFLINE]
    restart = server._placement.view.restart
    assert (restart.phase, restart.error) == (RestartPhase.FAILED, "RuntimeError: out of memory")
    assert server._go_back() == PRESENT


def what_fails_while_another_restart_waits_does_not_fail_that_one() -> None:
    server = steered()
    server._placement.accept(REQUEST)
    server._fallback = PRESENT
    server._give_up_blocks("RuntimeError: out of memory")
    assert server._placement.wanted == REQUEST
    assert server._go_back() is None  # it was the fallback itself that failed


def fail_to_connect() -> None:
    raise OSError("no network")


def petals_tries_for_ever_but_within_the_limit() -> None:
    limit, slept = RetryLimit(), list[float]()
    with mock.patch.object(time, "sleep", slept.append):
        limit.sleep(1.0)
        with limit.limited(1):
            limit.sleep(2.0)
            try:
                fail_to_connect()
            except OSError:
                error = raised(WeightsUnavailableError, lambda: limit.sleep(3.0))
            assert "no network" in str(error)
        limit.sleep(4.0)
    assert slept == [1.0, 2.0, 4.0]


def what_is_fetched_in_the_background_goes_on_while_the_same_is_waited_for() -> None:
    begun, go_on, read = threading.Event(), threading.Event(), list[str]()

    def load(_model: str, prefix: str, **_options: object) -> None:
        read.append(prefix)
        begun.set()
        assert go_on.wait(60)

    from_pretrained._load_state_dict_from_repo = load
    weights = Weights(
        SimpleNamespace(
            converted_model_name_or_path=".",
            block_config=SimpleNamespace(block_prefix="b"),
            revision=None,
            token=None,
            cache_dir=".",
            max_disk_space=None,
        )
    )
    weights.fetch_in_background(Span(0, 2), lambda span, error: None)
    assert begun.wait(60)
    go_on.set()
    weights.fetch(Span(0, 2), lambda progress: None)
    assert read == ["b.0.", "b.1."]


def a_start_that_is_not_waited_for_returns_at_once_and_one_given_up_kills_the_deaf() -> None:
    container = ModuleContainer.__new__(ModuleContainer)
    done: list[str] = []
    handler = SimpleNamespace(
        ready=SimpleNamespace(set_exception=lambda error: done.append("told")),
        is_alive=lambda: True,
        join=lambda *seconds: done.append("waited for"),
        kill=lambda: done.append("killed"),
    )
    container.start = lambda: done.append("started")
    container.join = lambda seconds: done.append("joined")
    container.shutdown = lambda: done.append("shut down")
    container.conn_handlers = [handler]
    container.run_in_background(await_ready=False)
    assert done == ["started"]
    container.runtime = SimpleNamespace(ready=SimpleNamespace(wait=lambda seconds: False))
    container.is_alive = lambda: False
    container._failure = "RuntimeError: out of memory"
    assert "out of memory" in str(raised(NotServingError, container.run_in_background))
    assert done[1:] == ["started", "told", "joined", "shut down", "waited for", "killed", "waited for"]


CASES = (
    a_stop_ends_the_wait_for_the_sidecars_choice,
    a_stop_ends_a_drain,
    a_server_that_is_about_to_end_refuses_to_restart,
    a_pinned_server_refuses_to_restart,
    a_server_that_loads_refuses_to_prefetch,
    without_a_sidecar_petals_own_rule_decides,
    blocks_that_are_loaded_before_any_are_shown_show_no_progress,
    a_failed_move_takes_its_announcements_back_and_is_shown,
    what_fails_while_another_restart_waits_does_not_fail_that_one,
    what_is_fetched_in_the_background_goes_on_while_the_same_is_waited_for,
    a_start_that_is_not_waited_for_returns_at_once_and_one_given_up_kills_the_deaf,
    petals_tries_for_ever_but_within_the_limit,
)


def main() -> None:
    failed: dict[str, str | None] = {}
    cases: list[tuple[str, Callable[[], None]]] = [(case.__name__, case) for case in CASES]
    ends = a_failure_before_any_move_ends_the_server_as_it_ends_petals
    cases.append((ends.__name__, lambda: ends(sys.argv[1])))
    for name, case in cases:
        try:
            case()
        except BaseException:
            failed[name] = traceback.format_exc()
        else:
            failed[name] = None
    print(json.dumps(failed))


main()
