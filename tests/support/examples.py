"""How many examples property tests try: few in every run, many when they are asked for (`make test-thorough`)."""

from __future__ import annotations

from hypothesis import Phase, settings

settings.register_profile("swarmkeel", deadline=None, max_examples=100)  # a busy machine is no mistake of the code
settings.register_profile("thorough", deadline=None, max_examples=2000)
# Hundreds of times in a row, and each time the same (`make mutation`); that a test fails is enough, however large its example.
settings.register_profile(
    "mutation",
    deadline=None,
    max_examples=25,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    report_multiple_bugs=False,
)


def examples(share: float) -> settings:
    """Try only this share of a run's usual number of examples, where each is dear."""
    return settings(max_examples=max(round(share * settings().max_examples), 1))
