"""Filling blocks into a command: exactly the named places, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.control.supervisor_command import CommandTemplate
from swarmkeel.errors import UsageError
from swarmkeel.swarm.span import Span

_PLACES = ("{start}", "{end}", "{num_blocks}")
_SPANS = st.tuples(st.integers(0, 500), st.integers(1, 80)).map(lambda pair: Span(pair[0], sum(pair)))
_TEXTS = st.text(st.sampled_from('{}abstarend_:0 \n$é"'), max_size=12).filter(
    lambda text: not any(place in text for place in _PLACES)
)


@given(span=_SPANS, texts=st.lists(_TEXTS, min_size=4, max_size=4))
def test_places_are_filled_and_all_else_stays(span: Span, texts: list[str]) -> None:
    # Text between two places may itself become a place together with them only by its braces.
    one, two, three, four = (text.strip("{}") for text in texts)
    template = CommandTemplate(("program", f"{one}{{start}}{two}{{end}}{three}{{num_blocks}}{four}", *texts))
    filled = f"{one}{span.start}{two}{span.end}{three}{len(span)}{four}"
    assert list(template.fill(span)) == ["program", filled, *texts]


@given(span=_SPANS)
def test_what_is_filled_has_no_places_left_and_as_many_arguments(span: Span) -> None:
    template = CommandTemplate(
        ("/bin/serve", "--block_indices", "{start}:{end}", '{"blocks": {start}}', "{}", "{{end}}")
    )
    assert list(template.fill(span)) == [
        "/bin/serve",
        "--block_indices",
        str(span),
        f'{{"blocks": {span.start}}}',
        "{}",
        f"{{{span.end}}}",
    ]
    assert template.name == "serve"


@pytest.mark.parametrize("arguments", [(), ("",), ("serve",), ("serve", "{stop}"), ("serve", "{end}")])
def test_a_command_that_cannot_be_told_its_blocks_is_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        CommandTemplate(arguments)
