#!/bin/sh
# Unpack Debian's prometheus package (the server and promtool) into .venv/debian: no root, no service, no file outside
# the checkout. Where that cannot be done, say so and go on: the tests that need it skip, and in CI a skip is a failure.
set -u
cd "$(dirname "$0")/../.." || exit 1
target=.venv/debian

command -v promtool >/dev/null 2>&1 && command -v prometheus >/dev/null 2>&1 && exit 0
[ -x "$target/usr/bin/promtool" ] && exit 0

give_up() {
  echo "Prometheus is not to be had here ($1): the tests that need it will skip" >&2
  exit 0
}
command -v apt-get >/dev/null 2>&1 || give_up "there is no apt-get"
command -v dpkg-deb >/dev/null 2>&1 || give_up "there is no dpkg-deb"

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/unpacked"
chmod 755 "$work" # apt fetches as a user of its own where it is run by root
printf '%s\n' "Dir::State::lists \"$work/lists\";" "Dir::Cache \"$work/cache\";" 'APT::Sandbox::User "";' >"$work/apt.conf"
export APT_CONFIG="$work/apt.conf"

echo "Fetching Debian's Prometheus into $target ..."
apt-get -qq update >"$work/log" 2>&1 || give_up "apt-get update failed: $(tail -n 1 "$work/log")"
(cd "$work" && apt-get -qq download prometheus) >"$work/log" 2>&1 || give_up "no such package: $(tail -n 1 "$work/log")"
dpkg-deb -x "$work"/prometheus_*.deb "$work/unpacked" || give_up "the package cannot be unpacked"
rm -rf "$target"
mv "$work/unpacked" "$target"
