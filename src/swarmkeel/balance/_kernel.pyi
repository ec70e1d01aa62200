from numpy import float64, int64
from numpy.typing import NDArray

def move_in_turn(
    throughputs: NDArray[float64],
    starts: NDArray[int64],
    lengths: NDArray[int64],
    shares: NDArray[float64],
    order: NDArray[int64],
    epsilon: float,
) -> int: ...
