"""The record that a server keeps in the DHT under each of its blocks, and how it is checked.

Field by field this accepts what `petals.data_structures.ServerInfo.from_tuple` of Petals 2.2.0.post1 accepts (under
pydantic 2): everything that comes from the DHT is unsigned and untrusted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

RequestsPerSecond = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
_Count = Annotated[int, Field(ge=0, strict=True)]
_Seconds = Annotated[float, Field(ge=0, strict=True)]


class ServerState(Enum):
    """What a server announces of itself; the values are those on the wire."""

    OFFLINE = 0
    JOINING = 1
    ONLINE = 2


@dataclass(frozen=True, config=ConfigDict(extra="ignore"))
class ServerInfo:
    """What one server announces under one block: names, order and defaults are those of Petals' `ServerInfo`.

    Attributes:
        state: OFFLINE, JOINING or ONLINE.
        throughput: Requests a second that the server claims to serve.
        start_block: First block of its span, as an index of the model; None where the server does not tell.
        end_block: Block after the last one of its span.
    """

    state: ServerState
    throughput: RequestsPerSecond

    start_block: _Count | None = None
    end_block: _Count | None = None

    public_name: str | None = None
    version: str | None = None

    network_rps: RequestsPerSecond | None = None
    forward_rps: RequestsPerSecond | None = None
    inference_rps: RequestsPerSecond | None = None

    adapters: Sequence[str] = ()
    torch_dtype: str | None = None
    quant_type: str | None = None
    using_relay: bool | None = None
    cache_tokens_left: _Count | None = None
    next_pings: Mapping[str, _Seconds] | None = None

    def to_tuple(self) -> tuple[int, float, dict[str, Any]]:
        """Give the record as it is stored in the DHT: (state, throughput, all other fields)."""
        extras = dataclasses.asdict(self)
        del extras["state"], extras["throughput"]
        return self.state.value, self.throughput, extras

    @classmethod
    def from_tuple(cls, source: Sequence[Any]) -> ServerInfo:
        """Check and read a record as it is stored in the DHT.

        Args:
            source: (state, throughput) or (state, throughput, extras), as a tuple or a list.

        Raises:
            TypeError, ValueError: If Petals would reject it; pydantic's ValidationError is a ValueError.
        """
        state, throughput = source[:2]
        extras = source[2] if len(source) > 2 else {}
        return cls(state=ServerState(state), throughput=throughput, **extras)
