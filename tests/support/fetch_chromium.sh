#!/bin/sh
# Unpack Debian's chromium, a font, and what they need that this machine does not have, into .venv/chromium.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/support/debian_packages.sh
program=Chromium
target=$PWD/.venv/chromium

command -v chromium >/dev/null 2>&1 && exit 0
[ -x "$target/usr/lib/chromium/chromium" ] && exit 0

prepare_apt
# Nothing is installed. The font is fetched although the machine may have it: its folder is the only one that is looked at.
apt-get -qq -y --download-only --reinstall install chromium chromium-common fonts-inter >"$work/log" 2>&1 ||
  give_up "no such package: $(tail -n 1 "$work/log")"
unpack "$work/cache/archives"
cat >"$work/unpacked/fonts.conf" <<END
<?xml version="1.0"?>
<fontconfig>
  <dir>$target/usr/share/fonts</dir>
  <cachedir>$target/fonts-cache</cachedir>
  <alias><family>sans-serif</family><prefer><family>Inter</family></prefer></alias>
  <alias><family>system-ui</family><prefer><family>Inter</family></prefer></alias>
</fontconfig>
END
deliver
