"""What every test runs with."""

from hypothesis import settings

pytest_plugins = ["tests.support.ci"]

settings.register_profile("swarmkeel", deadline=None)  # a busy machine is no mistake of the code
settings.load_profile("swarmkeel")
