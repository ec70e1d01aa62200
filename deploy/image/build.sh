#!/bin/sh
# Build the image with buildah. Usage: build.sh NAME [BASE [OPTION ...]]; PYTHON names the Python whose pip is asked below.
set -eu
cd "$(dirname "$0")/../.."
name=${1:?usage: build.sh NAME [BASE [OPTION ...]]}
base=${2:-}
shift "$(($# < 2 ? $# : 2))"
export BUILDAH_ISOLATION="${BUILDAH_ISOLATION:-chroot}" # needs neither a daemon nor a container runtime

# Where pip finds packages on this machine, it finds them in the build: the settings go there as a secret, and the files
# and folders that they name (certificates, wheels) read only; of an index on this disk the folder above, since an index
# points to files beside it. The first of two settings wins: the environment's come first, as with pip.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
{
  echo '[global]'
  "${PYTHON:-python3}" -m pip config list | sed -n "s/^[^=]*\.\([a-z-]*\)='\(.*\)'\$/\1 = \2/p" | awk '!seen[$1]++'
} >"$work/pip.conf"
for path in $(sed -n 's/^[^=]* = //p' "$work/pip.conf"); do
  case $path in file://*) path=$(dirname "${path#file://}") ;; esac
  case $path in /*) [ ! -e "$path" ] || set -- "$@" --volume "$path:$path:ro" ;; esac
done

# The format of Docker, since that of OCI knows no health check.
buildah build --format docker --secret "id=pip.conf,src=$work/pip.conf" \
  ${base:+--build-arg "PYTHON_IMAGE=$base"} --tag "$name" "$@" .
