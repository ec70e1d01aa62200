"""Plugins that every test runs with."""

pytest_plugins = ["tests.support.ci"]
