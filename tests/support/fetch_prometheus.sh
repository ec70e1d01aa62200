#!/bin/sh
# Unpack Debian's prometheus package (the server and promtool) into .venv/debian.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/support/debian_packages.sh
program=Prometheus
target=$PWD/.venv/debian

command -v promtool >/dev/null 2>&1 && command -v prometheus >/dev/null 2>&1 && exit 0
[ -x "$target/usr/bin/promtool" ] && exit 0

prepare_apt
(cd "$work/cache" && apt-get -qq download prometheus) >"$work/log" 2>&1 || give_up "no such package: $(tail -n 1 "$work/log")"
unpack "$work/cache"
deliver
