# Sourced by the scripts that unpack Debian's packages into .venv: no root, no service, no file outside the checkout. Where
# that cannot be done they say so and go on: the tests that need the program skip, and in CI a skip is a failure.
# shellcheck shell=sh

# give_up WHY: end the script; $program is what cannot be had.
give_up() {
  echo "$program is not to be had here ($1): the tests that need it will skip" >&2
  exit 0
}

# prepare_apt: make the folder $work, removed at the end, and let apt-get use it alone. Unpacked is what goes to the target.
prepare_apt() {
  command -v apt-get >/dev/null 2>&1 || give_up "there is no apt-get"
  command -v dpkg-deb >/dev/null 2>&1 || give_up "there is no dpkg-deb"
  work=$(mktemp -d) || exit 1
  trap 'rm -rf "$work"' EXIT
  mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/unpacked"
  chmod 755 "$work" # apt fetches as a user of its own where it is run by root
  printf '%s\n' "Dir::State::lists \"$work/lists\";" "Dir::Cache \"$work/cache\";" 'APT::Sandbox::User "";' \
    'APT::Install-Recommends "false";' 'Debug::NoLocking "true";' >"$work/apt.conf"
  export APT_CONFIG="$work/apt.conf"
  echo "Fetching Debian's $program into $target ..."
  apt-get -qq update >"$work/log" 2>&1 || give_up "apt-get update failed: $(tail -n 1 "$work/log")"
}

# unpack FOLDER: unpack every package in it into $work/unpacked.
unpack() {
  for package in "$1"/*.deb; do
    dpkg-deb -x "$package" "$work/unpacked" || give_up "$package cannot be unpacked"
  done
}

# deliver: put what was unpacked into the place of $target.
deliver() {
  rm -rf "$target"
  mv "$work/unpacked" "$target"
}
