"""What this project uses of hivemind: its DHT, without the rest. All that speaks to the DHT takes hivemind from here.

`import hivemind` also runs all that trains models, and with it torch and scipy: seconds of computing and 200 MB, of which
the DHT uses nothing. A sidecar is a small process beside a server that wants to compute, so hivemind's package is put
in its place here without being run, and three modules of it that need torch wait until somebody asks for them. Nothing is
missing to a program that uses hivemind for itself: its names come when they are first asked for.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any, Final

_LATER: Final = (
    ("hivemind.utils", "mpfuture", "MPFuture"),
    ("hivemind.utils", "tensor_descr", "TensorDescriptor"),
    ("hivemind.dht", "dht", "DHT"),
)
"""Package, module and the one name that the package takes from it; a DHT node needs none of them."""


def _import_the_dht_alone() -> None:
    spec = find_spec("hivemind")
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError("No module named 'hivemind'", name="hivemind")
    sys.modules["hivemind"] = hivemind = module_from_spec(spec)
    for package, module, name in _LATER:
        place_holder = ModuleType(f"{package}.{module}")
        vars(place_holder)[name] = None
        sys.modules[place_holder.__name__] = place_holder
    try:
        import_module("hivemind.dht")
    except BaseException:
        del sys.modules["hivemind"]
        raise
    finally:
        for package, module, _ in _LATER:
            del sys.modules[f"{package}.{module}"]
    for package in sorted({package for package, _, _ in _LATER}):
        _give_later(sys.modules[package])

    def run_after_all(name: str) -> Any:  # noqa: ANN401 - whatever hivemind offers
        if name.startswith("__") and name != "__version__":  # Python's own questions about a module
            raise AttributeError(f"module 'hivemind' has no attribute {name!r}", name=name, obj=hivemind)
        del vars(hivemind)["__getattr__"]
        spec.loader.exec_module(hivemind)  # type: ignore[union-attr] # it was checked above
        return getattr(hivemind, name)

    vars(hivemind)["__getattr__"] = run_after_all


def _give_later(package: ModuleType) -> None:
    """Take the place holders out of a package again, and import what they stood for when it is asked for."""
    later = {name: module for its_package, module, name in _LATER if its_package == package.__name__}
    for name in later:
        del vars(package)[name]

    def give(name: str) -> Any:  # noqa: ANN401 - as above
        if name not in later:
            raise AttributeError(f"module {package.__name__!r} has no attribute {name!r}", name=name, obj=package)
        vars(package)[name] = value = getattr(import_module(f"{package.__name__}.{later[name]}"), name)
        return value

    vars(package)["__getattr__"] = give


if "hivemind" not in sys.modules:
    _import_the_dht_alone()

from hivemind.dht import DHTNode  # noqa: E402 - only now is hivemind in its place, here and below
from hivemind.dht.protocol import DHTProtocol, ValidationError  # noqa: E402
from hivemind.dht.routing import DHTID  # noqa: E402
from hivemind.p2p import P2P, PeerID  # noqa: E402
from hivemind.proto import dht_pb2  # noqa: E402
from hivemind.utils import MSGPackSerializer, get_dht_time  # noqa: E402
from hivemind.utils.logging import use_hivemind_log_handler  # noqa: E402
from hivemind.utils.multiaddr import Multiaddr  # noqa: E402

__all__ = [
    "DHTID",
    "P2P",
    "DHTNode",
    "DHTProtocol",
    "MSGPackSerializer",
    "Multiaddr",
    "PeerID",
    "ValidationError",
    "dht_pb2",
    "get_dht_time",
    "use_hivemind_log_handler",
]
