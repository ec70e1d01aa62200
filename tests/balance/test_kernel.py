"""The compiled search gives the same bits as the one with numpy, which the golden cases and the plain rules hold."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.balance import imbalance
from swarmkeel.balance.imbalance import ImbalanceCheck, check_imbalance
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.remote import RemoteSpanInfo

needs_kernel = pytest.mark.skipif(
    imbalance.compiled is None, reason="the kernel is not compiled: python hatch_build.py"
)
Spans = dict[str, RemoteSpanInfo[str]]


@st.composite
def swarms(draw: st.DrawFn) -> tuple[Spans, int]:
    """Up to sixty servers, equally fast, nearly so, or with powers of two between them, many of them alike."""
    total_blocks = draw(st.integers(1, 40))
    throughputs = st.sampled_from(
        draw(
            st.sampled_from(
                [(10.0,), (1.0, 2.0, 4.0), (0.1, 0.2, 0.3), (10.0, 10.01, 9.99), (1e-300, 1.0, 1e290), (0.0, 5.0)]
            )
        )
    ) | st.floats(0, 1e3)
    spans: Spans = {}
    for number in range(draw(st.integers(1, 60))):
        start = draw(st.integers(0, total_blocks - 1))
        end = draw(st.integers(start + 1, total_blocks))
        info = ServerInfo(ServerState.ONLINE, draw(throughputs))
        spans[f"Qm{number}"] = RemoteSpanInfo(f"Qm{number}", start, end, info)
    return spans, total_blocks


def check(spans: Spans, total_blocks: int, seed: int) -> tuple[ImbalanceCheck, str | None]:
    """Check the first server; the bottleneck that is reached also as it is to the last bit."""
    rng = np.random.RandomState(seed)
    found = check_imbalance("Qm0", spans, 0.75, total_blocks=total_blocks, rng=rng)
    return found, None if found.reached_rps is None else found.reached_rps.hex()


@needs_kernel
@given(swarms(), st.integers(0, 2**32 - 1))
def test_compiled_search_gives_the_same_bits(swarm: tuple[Spans, int], seed: int) -> None:
    asked = 0

    def counted(*arguments: object) -> int:
        nonlocal asked
        asked += 1
        assert compiled is not None
        return compiled(*arguments)

    compiled = imbalance.compiled
    with mock.patch.object(imbalance, "compiled", counted):
        by_kernel = check(*swarm, seed)
    with mock.patch.object(imbalance, "compiled", None):
        assert check(*swarm, seed) == by_kernel
    assert asked == by_kernel[0].rounds


@needs_kernel
@pytest.mark.parametrize(
    ("start", "end", "throughput"), [(10**30, 4, 1.0), (3, 1, 1.0), (0, 0, 1.0), (0, 2, 1e300)], ids=str
)
def test_swarm_that_is_not_for_the_kernel_goes_the_other_way(start: int, end: int, throughput: float) -> None:
    def info(throughput: float) -> ServerInfo:
        return ServerInfo(ServerState.ONLINE, throughput)

    spans = {
        "Qm0": RemoteSpanInfo("Qm0", 0, 2, info(5.0)),
        "Qm1": RemoteSpanInfo("Qm1", 0, 2, info(5.0)),
        "Qm2": RemoteSpanInfo("Qm2", start, end, info(throughput)),
    }
    with mock.patch.object(imbalance, "compiled", side_effect=AssertionError):
        assert check(spans, 4, 0)[0].rounds


@needs_kernel
@pytest.mark.parametrize(
    ("starts", "lengths", "order"),
    [
        ([3], [2], [0]),
        ([-1], [1], [0]),
        ([0], [0], [0]),
        ([0], [5], [0]),
        ([0], [1], [1]),
        ([0], [1], [-1]),
        ([0], [1, 1], [0]),
    ],
)
def test_kernel_never_writes_outside_of_the_blocks(starts: list[int], lengths: list[int], order: list[int]) -> None:
    assert imbalance.compiled is not None
    throughputs = np.ones(4)
    with pytest.raises(ValueError, match=r"outside|equally long"):
        imbalance.compiled(
            throughputs, np.array(starts), np.array(lengths), np.ones(len(starts)), np.array(order), 1e-3
        )
    assert throughputs.tolist() == [1.0] * 4


@needs_kernel
def test_kernel_takes_no_other_arrays() -> None:
    assert imbalance.compiled is not None
    one = np.array([0])
    with pytest.raises(ValueError, match="eight bytes"):
        imbalance.compiled(np.ones(4, dtype=np.float32), one, one + 1, np.ones(1), one, 1e-3)
    frozen = np.ones(4)
    frozen.flags.writeable = False
    with pytest.raises((BufferError, ValueError)):
        imbalance.compiled(frozen, one, one + 1, np.ones(1), one, 1e-3)
