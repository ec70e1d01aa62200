#!/bin/sh
# Install a wheel into an empty environment, as its users do, and run the demo from there, where nothing of the checkout
# is found. Usage: try_wheel.sh WHEEL; PYTHON names the Python to do it with.
set -eu
wheel=$(realpath "${1:?usage: try_wheel.sh WHEEL}")
constraints=$(realpath "$(dirname "$0")/../constraints.txt")
python=$(realpath --no-symlinks "$(command -v "${PYTHON:-python3}")")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"$python" -m venv environment
environment/bin/pip install --quiet --disable-pip-version-check --constraint "$constraints" "$wheel"
environment/bin/pip check --disable-pip-version-check

told=$(environment/bin/swarmkeel --version)
case $(basename "$wheel") in
  "$(echo "$told" | tr ' ' -)"-*) echo "$told, from $(basename "$wheel")" ;;
  *) echo "$(basename "$wheel") says that it is $told" >&2 && exit 1 ;;
esac
environment/bin/swarmkeel demo
