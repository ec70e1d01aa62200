"""What every test runs with."""

from hypothesis import settings

import swarmkeel.swarm.hivemind_dht  # noqa: F401 - before any test takes hivemind for itself, with all that it loads

pytest_plugins = ["tests.support.ci"]

settings.register_profile("swarmkeel", deadline=None)  # a busy machine is no mistake of the code
settings.load_profile("swarmkeel")
