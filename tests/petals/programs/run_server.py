"""Petals' own server, nothing of Swarmkeel in it but hivemind's old names. Arguments: those of petals.cli.run_server."""

from swarmkeel.control.petals_hivemind import restore_hivemind_names

restore_hivemind_names()

from petals.cli import run_server  # noqa: E402 - hivemind's names come first

run_server.validate_version = lambda: None  # it would ask a website
run_server.main()
