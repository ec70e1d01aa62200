"""What people see of the demo: a live picture on a terminal, plain lines elsewhere, and a table in the end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from rich.box import SIMPLE
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from swarmkeel.demo.report import Milestone, Report, share_of
from swarmkeel.demo.scenario import GOAL
from swarmkeel.demo.show import Scene
from swarmkeel.printable import printable
from swarmkeel.swarm.snapshot import SwarmSnapshot

_NEWS_LINES: Final = 8
_LONGEST_LINE: Final = 160

DrawSwarm = Callable[[SwarmSnapshot], RenderableType]


def headline(scene: Scene) -> Text:
    """Give a scene in numbers, as one line that fits 80 columns."""
    sight, best = scene.sight, scene.best
    line = Text(f"{scene.seconds:5.1f} s  bottleneck {sight.bottleneck_rps:.4g}")
    if best is None:
        line.append(" RPS")
    else:
        share = share_of(sight.bottleneck_rps, best)
        line.append(f" of {best.bound_rps:.4g} RPS ({share:.0%})", "green" if share >= GOAL else "yellow")
    line.append("; ")
    line.append(f"{sight.uncovered_blocks} uncovered", "bold red" if sight.uncovered_blocks else "")
    line.append(f"; {len(sight.online)} online, {len(sight.joining)} loading; {scene.moves} moves")
    return line


class LiveView:
    """A picture that keeps up with the swarm; for terminals. A context manager.

    Args:
        console: Where to draw.
        draw_swarm: Draws a snapshot.
    """

    def __init__(self, console: Console, draw_swarm: DrawSwarm) -> None:
        self._draw_swarm = draw_swarm
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._console = console
        self._scene: Scene | None = None
        self._news: deque[Text] = deque(maxlen=_NEWS_LINES)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, scene: Scene) -> None:
        """Draw the swarm as it is now."""
        self._scene = scene
        self._refresh()

    def tell(self, seconds: float, text: str) -> None:
        """Put what happened under the picture."""
        self._news.append(news_line(seconds, text))
        self._refresh()

    def _refresh(self) -> None:
        parts: list[RenderableType] = []
        if self._scene is not None:
            parts += [
                Text(self._scene.act, "bold"),
                headline(self._scene),
                Text(),
                self._draw_swarm(self._scene.sight.snapshot),
                Text(),
            ]
        self._live.update(Group(*parts, *self._news), refresh=True)


class PlainView:
    """Lines of what happened; for logs and pipes. A context manager like `LiveView`.

    Args:
        console: Where to print.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: tuple[float, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing to put away."""

    def show(self, scene: Scene) -> None:
        """Print the numbers, but only if they are others than before: a line for every look would be hundreds."""
        numbers = (scene.sight.bottleneck_rps, scene.sight.uncovered_blocks)
        if numbers != self._shown:
            self._shown = numbers
            self._console.print(headline(scene), soft_wrap=True)

    def tell(self, seconds: float, text: str) -> None:
        """Print what happened."""
        self._console.print(news_line(seconds, text), soft_wrap=True)


def news_line(seconds: float, text: str) -> Text:
    """Give something that happened as a line that is safe to print."""
    return Text(f"{seconds:5.1f} s  {printable(text, _LONGEST_LINE)}", no_wrap=True, overflow="ellipsis")


def milestone_table(milestones: Sequence[Milestone]) -> Table:
    """Give the milestones of a demo as a table: the swarm before and after."""
    table = Table(box=SIMPLE, title="Bottleneck of the swarm, before and after")
    table.add_column("", no_wrap=True)
    for heading in ("at", "servers", "RPS", "best RPS", "share", "uncovered", "moves"):
        table.add_column(heading, justify="right")
    for milestone in milestones:
        table.add_row(
            milestone.name,
            f"{milestone.seconds:.0f} s",
            str(milestone.servers),
            f"{milestone.bottleneck_rps:.4g}",
            f"{'' if milestone.best.is_exact else '<='}{milestone.best.bound_rps:.4g}",
            Text(f"{milestone.share:.0%}", "green" if milestone.share >= GOAL else "yellow"),
            Text(str(milestone.uncovered_blocks), "bold red" if milestone.uncovered_blocks else ""),
            str(milestone.moves),
        )
    return table


def comparison_table(reports: Sequence[Report]) -> Table:
    """Give how several policies healed the same failures, as a table."""
    table = Table(box=SIMPLE, title="The same failures, healed by each policy")
    table.add_column("policy", no_wrap=True)
    for when in ("start", "kill"):
        for heading in ("healed in", "moves", "share"):
            table.add_column(f"{when}:\n{heading}", justify="right")
    for report in reports:
        cells: list[Text | str] = []
        for healing in report.healing():
            if healing is None:
                cells += [Text("never", "bold red"), "", ""]
            else:
                style = "green" if healing.share >= GOAL else "yellow"
                cells += [f"{healing.seconds:.0f} s", str(healing.moves), Text(f"{healing.share:.0%}", style)]
        table.add_row(report.policy, *cells)
    return table
