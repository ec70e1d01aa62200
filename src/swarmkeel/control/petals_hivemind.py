"""Petals beside newer hivemind: gives back the names that hivemind's packages no longer re-export.

Petals 2.2 was written for hivemind 1.1.10, whose top level and packages offered nearly every public name of their
submodules (`from hivemind import PeerID`). From 1.1.12 on they offer a few, and `import petals` fails. Older hivemind is
left as it is: a name that is there is never replaced.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Final

_PACKAGES: Final = ("utils", "p2p", "dht", "compression", "moe.client", "moe.server", "moe")


def restore_hivemind_names() -> None:
    """Put the public names of hivemind's submodules where Petals looks for them. To be called before `import petals`.

    Raises:
        ImportError: If there is no hivemind, or it is broken.
    """
    hivemind = importlib.import_module("hivemind")
    for name in _PACKAGES:
        package = importlib.import_module(f"hivemind.{name}")
        for module in (package, *_submodules(package)):
            for public, value in _own_names(module):
                for place in (package, hivemind):
                    if not hasattr(place, public):
                        setattr(place, public, value)


def _submodules(package: ModuleType) -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        yield importlib.import_module(found.name)


def _own_names(module: ModuleType) -> Iterator[tuple[str, object]]:
    """Give what a module offers: all that a package re-exports; of other modules hivemind's own names and constants."""
    is_package = hasattr(module, "__path__")
    for name, value in vars(module).items():
        if name.startswith("_") or isinstance(value, ModuleType):
            continue
        of_hivemind = str(getattr(value, "__module__", "")).startswith("hivemind.")
        if is_package or of_hivemind or name.isupper() or name.startswith("DHT"):
            yield name, value
