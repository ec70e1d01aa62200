"""hivemind's DHT without torch, and all the rest of hivemind for those who ask for it."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("module", ["swarmkeel.daemon.service", "swarmkeel.demo.stand_in", "swarmkeel.demo.swarm"])
def test_what_speaks_to_the_dht_does_not_load_torch(module: str) -> None:
    loaded = set(run(f"import sys, {module}; print(*sys.modules)").split())
    assert "hivemind.dht.node" in loaded
    assert not loaded & {"torch", "scipy", "hivemind.averaging", "hivemind.utils.mpfuture", "hivemind.dht.dht"}


def test_a_program_has_the_whole_of_hivemind_beside_it() -> None:
    program = """if True:
        import sys
        from swarmkeel.swarm import hivemind_dht
        assert "torch" not in sys.modules
        import hivemind
        from hivemind.averaging import DecentralizedAverager
        from hivemind.utils import MPFuture, TensorDescriptor, get_dht_time
        assert "torch" in sys.modules
        assert not hasattr(hivemind.utils, "nonsense") and not hasattr(hivemind, "__nonsense__")
        assert hivemind.__version__ and hivemind.DecentralizedAverager is DecentralizedAverager
        assert hivemind.utils.mpfuture.MPFuture is MPFuture
        assert hivemind.utils.tensor_descr.TensorDescriptor is TensorDescriptor
        assert not hasattr(hivemind, "nonsense")
        assert hivemind.dht.DHTNode is hivemind_dht.DHTNode
        dht = hivemind.DHT(start=True)
        try:
            assert dht.store("key", "value", get_dht_time() + 60)
            print(dht.get("key").value)
        finally:
            dht.shutdown()
    """
    assert run(program) == "value\n"


def test_hivemind_that_is_there_already_is_left_as_it_is() -> None:
    program = """if True:
        import hivemind, sys
        before = dict(vars(hivemind)), dict(vars(hivemind.utils)), dict(vars(hivemind.dht))
        from swarmkeel.swarm import hivemind_dht
        assert before == (vars(hivemind), vars(hivemind.utils), vars(hivemind.dht))
        assert hivemind_dht.DHTNode is hivemind.dht.DHTNode
    """
    run(program)


def test_without_hivemind_its_absence_is_said() -> None:
    program = """if True:
        import importlib.util
        importlib.util.find_spec = lambda name: None
        try:
            from swarmkeel.swarm import hivemind_dht
        except ModuleNotFoundError as error:
            print(error)
    """
    assert run(program) == "No module named 'hivemind'\n"
