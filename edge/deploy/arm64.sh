#!/bin/sh
# arm64.sh [CARGO OPTIONS]: reid-edge for 64-bit ARM (Jetson, Raspberry Pi, ...) built on an amd64 machine with Debian.
# `./reid build-arm64` runs it. The program lies in target/arm64/aarch64-unknown-linux-gnu/release/reid-edge.
#
# Installs gcc-aarch64-linux-gnu (an ordinary amd64 package) if it is missing; all else is unpacked into .deps/arm64 by
# sysroot.sh. Safe to run twice.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
triple=aarch64-unknown-linux-gnu
say() { printf 'reid: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

command -v cargo >/dev/null 2>&1 || die "cargo is missing: install Rust 1.95 or newer (https://rustup.rs), then run the command again"
if ! command -v aarch64-linux-gnu-gcc >/dev/null 2>&1; then
  as_root=
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || die "missing: aarch64-linux-gnu-gcc; run as root: apt-get install gcc-aarch64-linux-gnu"
    as_root=sudo
  fi
  say "installing with apt-get: gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
  $as_root apt-get update -qq
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    gcc-aarch64-linux-gnu libc6-dev-arm64-cross >/dev/null
fi
mkdir -p "$root/.deps"
sh "$root/edge/deploy/sysroot.sh" "$root/.deps/arm64"
deps=$(cd "$root/.deps/arm64" && pwd -P)
sysroot=$deps/sysroot

# Debian's compiler from where it was unpacked; cargo is the one of this machine.
export RUSTC="$deps/host/rustc"
export PKG_CONFIG_ALLOW_CROSS=1
export PKG_CONFIG_SYSROOT_DIR="$sysroot"
export PKG_CONFIG_LIBDIR="$sysroot/usr/lib/aarch64-linux-gnu/pkgconfig:$sysroot/usr/share/pkgconfig"
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
export AR_aarch64_unknown_linux_gnu=aarch64-linux-gnu-ar
export CFLAGS_aarch64_unknown_linux_gnu="--sysroot=$sysroot"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C link-arg=--sysroot=$sysroot"
# Not inherited: they would replace the flags above.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET

say "building reid-edge for $triple with $("$RUSTC" --version) (the first time takes 15 to 30 minutes on two cores)"
CARGO_TARGET_DIR="$root/target/arm64" cargo build --release -p reid-edge --bin reid-edge --target "$triple" \
  --manifest-path "$root/Cargo.toml" "$@"
