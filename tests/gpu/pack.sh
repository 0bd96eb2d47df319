#!/bin/sh
# Collects what tests/gpu/run needs from a build by build.sh into DIR: programs and test programs, stripped and compressed
# (some 10 MB each), so that they can be carried to a machine with a GPU. Builds them first if need be.
# usage: pack.sh DIR
set -eu
out=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "$0")/../.."
say() { printf 'pack: %s\n' "$*" >&2; }

release=${CARGO_TARGET_DIR:-$(pwd)/target}/cuda/release
sh tests/gpu/build.sh
# Where the test programs are, only cargo knows.
log=$out/tests.json
sh tests/gpu/build.sh --tests --test golden_nn --test cuda --message-format json >"$log"
pack() {
  say "$1"
  cp "$2" "$out/$1"
  strip "$out/$1"
  xz -T0 -f "$out/$1"
}
for program in reid-train reid-world reid-gpu; do pack "$program" "$release/$program"; done
for test in golden_nn cuda; do
  # shellcheck disable=SC2016  # a program for sed
  path=$(sed -n 's/.*"name":"'"$test"'".*"executable":"\([^"]*\)".*/\1/p' "$log" | tail -n 1)
  [ -n "$path" ] || { say "cargo named no test program $test"; exit 1; }
  pack "test-$test" "$path"
done
rm -f "$log"
mkdir -p "$out/golden"
cp train/tests/golden/*.safetensors "$out/golden/"
cp tests/gpu/run tests/gpu/peers.py tests/gpu/table.py "$out/"
say "in $out: run it there with ./run"
