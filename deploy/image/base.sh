#!/bin/sh
# Make a base image of Debian 12's own packages, for where no registry of images can be reached.
# Usage: base.sh NAME. Needs mmdebstrap and buildah.
set -eu
name=${1:?usage: base.sh NAME}
export BUILDAH_ISOLATION="${BUILDAH_ISOLATION:-chroot}" # needs neither a daemon nor a container runtime

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Root gets its own mount namespace: whatever happens, no file system of the machine stays mounted within.
own_mounts=
[ "$(id -u)" -ne 0 ] || own_mounts="unshare --mount"
$own_mounts mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3,python3-venv \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  bookworm "$work/root.tar"
container=$(buildah from scratch)
buildah add --quiet "$container" "$work/root.tar" / >/dev/null
buildah config --cmd bash "$container"
buildah commit --quiet --rm "$container" "$name"
