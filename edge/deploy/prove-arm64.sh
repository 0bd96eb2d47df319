#!/bin/sh
# prove-arm64.sh [--model FILE.onnx] [--video FILE]: does the program of `./reid build-arm64` link, start, open a camera and embed?
# Runs it under qemu with the arm64 libraries and plugins of .deps/arm64: --version, then `check` and `replay` with both engines (the
# built-in one, and ONNX Runtime from its arm64 wheel), then compares with the program of this machine. `./reid build-arm64 --prove`
# builds first. Without --model a small one is trained in a minute on simulated people, without --video a test picture is filmed.
#
# It shows that the code is right on arm64. It shows nothing about a Jetson's decoders, GPU or speed.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
here=$root/edge/deploy
work=$root/target/arm64/prove
program=$root/target/arm64/aarch64-unknown-linux-gnu/release/reid-edge
native=${CARGO_TARGET_DIR:-$root/target}/release/reid-edge
say() { printf 'reid: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
ok() { printf 'ok    %s\n' "$*"; }

model=
video=
while [ $# -gt 0 ]; do
  case $1 in
    --model) model=$2; shift 2 ;;
    --video) video=$2; shift 2 ;;
    *) say "unknown option $1 (known: --model FILE.onnx, --video FILE)"; exit 2 ;;
  esac
done

[ -x "$program" ] || die "$program is missing: ./reid build-arm64"
if ! command -v qemu-aarch64-static >/dev/null 2>&1 && ! command -v qemu-aarch64 >/dev/null 2>&1; then
  as_root=
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || die "missing: qemu-aarch64-static; run as root: apt-get install qemu-user-static"
    as_root=sudo
  fi
  say "installing with apt-get: qemu-user-static"
  $as_root apt-get update -qq
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends qemu-user-static >/dev/null
fi
arm64() { sh "$here/run-arm64.sh" "$program" "$@"; }

# 1. What the linker made.
newest=$(aarch64-linux-gnu-objdump -T "$program" | sed -n 's/.*(\?GLIBC_\([0-9.]*\)).*/\1/p' | sort -V | tail -n 1)
file_says=$(aarch64-linux-gnu-readelf -h "$program" | sed -n 's/^ *Machine: *//p')
[ "$file_says" = AArch64 ] || die "$program is for $file_says"
ok "linked for $file_says; needs glibc $newest or newer (JetPack 6 has 2.35, JetPack 5 has 2.31)"
# No newer than JetPack 6 has: a later Debian's C library would end that.
[ "$(printf '%s\n2.35\n' "$newest" | sort -V | tail -n 1)" = 2.35 ] || die "glibc $newest is newer than JetPack 6's"

# A private symbol would tie the program, and the package, to one version of glibc.
private=$(aarch64-linux-gnu-objdump -T "$program" | sed -n 's/.*GLIBC_PRIVATE)\? *//p' | tr '\n' ' ')
[ -z "$private" ] || die "$program uses private symbols of glibc: $private"

# 2. It starts.
version=$(arm64 --version)
ok "$version"

# 3. A camera, a model, both engines.
mkdir -p "$work"
if [ -z "$video" ]; then
  video=$work/test.mp4
  [ -f "$video" ] || gst-launch-1.0 -q videotestsrc num-buffers=60 pattern=ball ! video/x-raw,width=320,height=240,framerate=10/1 \
    ! videoconvert ! openh264enc ! h264parse ! mp4mux ! filesink location="$video"
fi
if [ -z "$model" ]; then
  model=$work/model.onnx
  if [ ! -f "$model" ]; then
    say "training a small model on simulated people (one epoch)"
    rm -rf "$work/crops" "$work/run"
    "$root/reid" world crops --out "$work/crops" --ids 12 --cameras 2 --seed 1 >/dev/null
    "$root/reid" train fit --method supervised --preset supervised_small --data "market1501:$work/crops" --out "$work/run" \
      --device cpu --set train.epochs=1 --set train.milestones='[1]' >/dev/null
    "$root/reid" export onnx --run "$work/run" --out "$model" >/dev/null
  fi
fi
# The newest that starts under Debian 12's qemu 7.2: 1.32 crashes there as soon as it is loaded.
runtime=1.23.2
wheel=$root/.deps/onnxruntime-arm64-$runtime
if [ ! -d "$wheel" ]; then
  say "fetching ONNX Runtime's arm64 wheel into .deps/onnxruntime-arm64-$runtime"
  rm -rf "$wheel.partial"
  python3 -m pip install -q --disable-pip-version-check --no-deps --no-compile --target "$wheel.partial" \
    --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux_2_17_aarch64 \
    --python-version 3.11 --implementation cp --only-binary=:all: "onnxruntime==$runtime"
  mv "$wheel.partial" "$wheel"
fi

# config ENGINE [LIBRARY]
config() {
  cat >"$work/$1.toml" <<TEXT
[[camera]]
name = "test"
source = "file:$(realpath "$video")"

[embedder]
model = "$(realpath "$model")"
backend = "$1"
${2:+library = \"$2\"}

[gallery]
path = ":memory:"

[serve]
enabled = false
TEXT
}
value() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
library=$(find "$wheel" -name 'libonnxruntime.so.*' | head -n 1)
for engine in tract onnxruntime; do
  if [ "$engine" = tract ]; then config tract; else config onnxruntime "$library"; fi
  # Translated code is slow: the camera gets its time.
  report=$(arm64 check --config "$work/$engine.toml" --wait 300 --json) || { arm64 check --config "$work/$engine.toml" --wait 300; die "check with $engine failed"; }
  ok "check with $engine: camera opens, $(printf %s "$report" | python3 -c '
import json, sys
report = json.load(sys.stdin)
print("least cosine to the trainer %.6f;" % report["min_cosine"] if report.get("min_cosine") is not None else "no probe in the model;", end=" ")
print("; ".join(f["detail"] for f in report["findings"] if f["what"].startswith("camera")))')"
done

# 4. The whole pipeline: frames, tracklets and identities as on this machine.
config tract
here_says=$("$native" replay --config "$work/tract.toml" --json)
there_says=$(arm64 replay --config "$work/tract.toml" --json)
for key in frames tracklets; do
  one=$(printf %s "$here_says" | value "$key")
  other=$(printf %s "$there_says" | value "$key")
  [ "$one" = "$other" ] || die "replay: $key are $other on arm64 and $one here"
done
ok "replay: $(printf %s "$there_says" | value frames) frames, $(printf %s "$there_says" | value tracklets) tracklets, as on this machine"
