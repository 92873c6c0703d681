#!/bin/sh
# Looks for Python and the system libraries that open3d and pymeshlab load; installs them where it may, else says how.
set -eu
python=${PYTHON:-python3}
packages="libegl1 libgl1 libusb-1.0-0 libgomp1 libopengl0"
libraries="libEGL.so.1 libGL.so.1 libusb-1.0.so.0 libgomp.so.1 libOpenGL.so.0"

if ! command -v "$python" >/dev/null 2>&1; then
    missing="python3 python3-venv"
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "Isomill needs Python 3.11 or newer; $python is $("$python" -V 2>&1). Name another:  make demo PYTHON=python3.12" >&2
    exit 1
elif ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    missing="python3-venv"
else
    missing=""
fi

if command -v ldconfig >/dev/null 2>&1; then known=$(ldconfig -p); else known=$(/sbin/ldconfig -p); fi
for library in $libraries; do
    case "$known" in *"$library"*) ;; *) missing="${missing:+$missing }$packages"; break ;; esac
done

[ -z "$missing" ] && exit 0
# shellcheck disable=SC2086 # the list is meant to be split
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing $missing …" >&2
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
    echo "Some system libraries are missing. Type this, then the same command again:" >&2
    echo "  sudo apt-get install -y --no-install-recommends $missing" >&2
    exit 1
fi
