"""What every test runs with."""

from hypothesis import settings

import swarmkeel.swarm.hivemind_dht  # noqa: F401 - before any test takes hivemind for itself, with all that it loads
import tests.support.examples  # noqa: F401 - its profiles

pytest_plugins = ["tests.support.ci"]

settings.load_profile("swarmkeel")
