"""What can be asked for in the queries of `/api/v1/`."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from swarmkeel.balance.decision import Verdict

MOVES_SHOWN: Final = 20
"""So many moves are given where nothing else is asked for."""
MAX_LISTED: Final = 1000


class Query(BaseModel):
    """What can be asked for in the query of a request."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class MovesQuery(Query):
    """Which moves are wanted."""

    limit: Annotated[int, Field(ge=1, le=MAX_LISTED)] = MOVES_SHOWN
    """At most so many, the newest."""


class ChecksQuery(Query):
    """Which checks are wanted."""

    limit: Annotated[int, Field(ge=1, le=MAX_LISTED)] = 100
    """At most so many, the newest."""
    before: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Only those made earlier than this, seconds since the epoch."""
    verdict: Verdict | None = None
    """Only those with this verdict."""


class TimelineQuery(Query):
    """Which part of the timeline is wanted."""

    since: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Only what was read later than this, seconds since the epoch."""
