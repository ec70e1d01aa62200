"""What people see of the demo."""

from __future__ import annotations

import io
import unicodedata

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from swarmkeel.commands.picture import SwarmPicture
from swarmkeel.demo.optimum import BestPossible
from swarmkeel.demo.report import Milestone, Report
from swarmkeel.demo.show import Scene
from swarmkeel.demo.sight import MoveCounter, Sight
from swarmkeel.demo.view import LiveView, PlainView, comparison_table, milestone_table, news_line
from swarmkeel.swarm.record import ServerState
from tests.demo.swarms import Placed, snapshot

BEST = BestPossible(20.0, is_exact=True)


def scene(*servers: Placed, best: BestPossible | None = BEST, seconds: float = 3.0) -> Scene:
    return Scene(seconds, "sidecars at work", Sight.take(snapshot(8, servers)), best, moves=4)


def console(*, terminal: bool = False) -> tuple[Console, io.StringIO]:
    output = io.StringIO()
    return Console(file=output, width=80, force_terminal=terminal, color_system=None, legacy_windows=False), output


def test_the_live_picture_shows_holes_numbers_and_news() -> None:
    screen, output = console(terminal=True)
    with LiveView(screen, SwarmPicture) as view:
        view.show(scene(Placed("QmOne", 0, 4, 5.0, name="one"), Placed("QmTwo", 3, 6, state=ServerState.JOINING)))
        view.tell(12.5, "two loads 3:6")
    shown = output.getvalue()
    assert "sidecars at work" in shown
    assert "bottleneck 0 of 20 RPS (0%); 4 uncovered; 1 online, 1 loading; 4 moves" in shown
    picture = next(line for line in shown.splitlines() if "X nobody" in line)
    assert picture.rstrip().endswith("jjXX")
    assert "one" in shown
    assert " 12.5 s  two loads 3:6" in shown


def test_plain_lines_come_only_with_news() -> None:
    screen, output = console()
    with PlainView(screen) as view:
        for seconds in range(100):
            view.show(scene(Placed("a", 0, 8, 5.0), seconds=seconds))
        view.show(scene(Placed("a", 0, 8, 5.0), best=None))
        view.show(scene(Placed("a", 0, 4, 5.0)))
        view.tell(99.0, "something")
    assert output.getvalue().splitlines() == [
        "  0.0 s  bottleneck 5 of 20 RPS (25%); 0 uncovered; 1 online, 0 loading; 4 moves",
        "  3.0 s  bottleneck 0 of 20 RPS (0%); 4 uncovered; 1 online, 0 loading; 4 moves",
        " 99.0 s  something",
    ]


@given(st.text(min_size=1))
def test_a_hostile_name_is_one_harmless_line(name: str) -> None:
    counter = MoveCounter()
    counter.look(Sight.take(snapshot(8, [Placed("a", 0, 4, name=name)])))
    (news,) = counter.look(Sight.take(snapshot(8, [Placed("a", 4, 8, name=name)])))
    plain, printed = console()
    PlainView(plain).tell(1.0, news)
    (line,) = printed.getvalue().rstrip("\n").split("\n")
    assert not any(unicodedata.category(character).startswith("C") for character in line)


def test_markup_in_a_name_is_only_text() -> None:
    assert news_line(1.0, "[red]x[/red] \x1b[31m").plain == "  1.0 s  [red]x[/red] ?[31m"


def test_the_table_fits_80_columns_and_tells_a_bound_from_the_optimum() -> None:
    screen, output = console()
    milestones = [
        Milestone("placed badly", 14.2, 16, 0.0, BestPossible(36.0, is_exact=False), 12, 0),
        Milestone("healed", 161.5, 14, 16.0, BEST, 0, 112),
    ]
    screen.print(milestone_table(milestones))
    lines = output.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    bad, healed = (line.split() for line in lines if "placed badly" in line or "healed" in line)
    assert bad[2:] == ["14", "s", "16", "0", "<=36", "0%", "12", "0"]
    assert healed[1:] == ["162", "s", "14", "16", "20", "80%", "0", "112"]


def test_policies_are_compared_on_the_same_failures() -> None:
    def milestone(seconds: float, moves: int, rps: float) -> Milestone:
        return Milestone("m", seconds, 12, rps, BEST, 0, moves)

    steps = (milestone(10, 0, 0), milestone(110, 12, 19), milestone(112, 12, 4), milestone(130, 15, 16))
    screen, output = console()
    screen.print(comparison_table([Report(0, "coordinated", (), steps), Report(0, "petals", (), steps[:3], "slow")]))
    lines = output.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    cells = [line.split() for line in lines if line.strip().startswith(("coordinated", "petals"))]
    assert cells == [
        ["coordinated", "100", "s", "12", "95%", "18", "s", "3", "80%"],
        ["petals", "100", "s", "12", "95%", "never"],
    ]
