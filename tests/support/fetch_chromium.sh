#!/bin/sh
# Unpack Debian's chromium, a font, and what they need that this machine does not have, into .venv/chromium: no root, no
# file outside the checkout. Where that cannot be done, say so and go on: the tests that need it skip, and in CI a skip is
# a failure.
set -u
cd "$(dirname "$0")/../.." || exit 1
target=$PWD/.venv/chromium

command -v chromium >/dev/null 2>&1 && exit 0
[ -x "$target/usr/lib/chromium/chromium" ] && exit 0

give_up() {
  echo "Chromium is not to be had here ($1): the tests of the status page will skip" >&2
  exit 0
}
command -v apt-get >/dev/null 2>&1 || give_up "there is no apt-get"
command -v dpkg-deb >/dev/null 2>&1 || give_up "there is no dpkg-deb"

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/unpacked"
chmod 755 "$work" # apt fetches as a user of its own where it is run by root
printf '%s\n' "Dir::State::lists \"$work/lists\";" "Dir::Cache \"$work/cache\";" 'APT::Sandbox::User "";' \
  'APT::Install-Recommends "false";' 'Debug::NoLocking "true";' >"$work/apt.conf"
export APT_CONFIG="$work/apt.conf"

echo "Fetching Debian's Chromium into $target ..."
apt-get -qq update >"$work/log" 2>&1 || give_up "apt-get update failed: $(tail -n 1 "$work/log")"
# Nothing is installed. The font is fetched although the machine may have it: its folder is the only one that is looked at.
apt-get -qq -y --download-only --reinstall install chromium chromium-common fonts-inter >"$work/log" 2>&1 ||
  give_up "no such package: $(tail -n 1 "$work/log")"
for package in "$work"/cache/archives/*.deb; do
  dpkg-deb -x "$package" "$work/unpacked" || give_up "$package cannot be unpacked"
done
cat >"$work/unpacked/fonts.conf" <<END
<?xml version="1.0"?>
<fontconfig>
  <dir>$target/usr/share/fonts</dir>
  <cachedir>$target/fonts-cache</cachedir>
  <alias><family>sans-serif</family><prefer><family>Inter</family></prefer></alias>
  <alias><family>system-ui</family><prefer><family>Inter</family></prefer></alias>
</fontconfig>
END
rm -rf "$target"
mv "$work/unpacked" "$target"
