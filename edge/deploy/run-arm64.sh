#!/bin/sh
# run-arm64.sh PROGRAM [ARGUMENTS]: an arm64 program on this amd64 machine, under qemu, with the libraries and GStreamer plugins of
# .deps/arm64/sysroot. Needs qemu-aarch64-static or qemu-aarch64 (package qemu-user-static). Slow: it proves, it does not measure.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
[ -d "$root/.deps/arm64/sysroot" ] || { echo "reid: .deps/arm64 is missing: ./reid build-arm64" >&2; exit 1; }
deps=$(cd "$root/.deps/arm64" && pwd -P)
libraries=$deps/sysroot/usr/lib/aarch64-linux-gnu
qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64) ||
  { echo "reid: qemu-aarch64-static is missing: apt-get install qemu-user-static" >&2; exit 1; }

# Folders that ldconfig and the alternatives would have named in an installed system.
path=$libraries
for folder in blas lapack pulseaudio; do path=$path:$libraries/$folder; done
# The scanner of plugins is a program of its own, which this kernel would not run.
exec "$qemu" -L "$deps/sysroot" \
  -E LD_LIBRARY_PATH="$path" \
  -E GST_PLUGIN_SYSTEM_PATH_1_0="$libraries/gstreamer-1.0" -E GST_PLUGIN_PATH_1_0= -E GST_REGISTRY_FORK=no \
  -E GST_REGISTRY_1_0="$deps/gstreamer-registry.bin" \
  "$@"
