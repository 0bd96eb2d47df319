#!/bin/sh
# Builds every program for NVIDIA GPUs, on any x86-64 Linux machine: no GPU, driver or root needed. The toolkit goes into
# .deps/cuda, the build into target/cuda, so that a build for processors stays as it is.
# usage: build.sh [ARGUMENTS OF cargo build] ; build.sh --tests [ARGUMENTS OF cargo test]: the test programs instead, not run
set -eu
cd "$(dirname "$0")/../.."
root=$(pwd)
say() { printf 'build-cuda: %s\n' "$*" >&2; }

if [ -n "${CUDA_HOME:-}" ] && [ -x "$CUDA_HOME/bin/nvcc" ]; then
  say "toolkit: CUDA_HOME=$CUDA_HOME"
else
  toolkit=$root/.deps/cuda
  [ -f "$toolkit/env.sh" ] || say "fetching a CUDA toolkit into .deps/cuda (2 GB)"
  sh "$root/tests/gpu/toolkit.sh" "$toolkit"
  # shellcheck source=/dev/null  # written by toolkit.sh
  . "$toolkit/env.sh"
fi
# Compiled for 8.0, it runs on everything newer.
export CUDA_COMPUTE_CAP="${CUDA_COMPUTE_CAP:-80}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}/cuda"

say "building (the first time takes 15 minutes on two cores, a third of it kernels)"
case ${1:-} in
  --tests)
    shift
    set -- test --no-run "$@"
    ;;
  *) set -- build --bins "$@" ;;
esac
cargo "$@" --release --workspace --features reid-train/cuda,reid-train/cudnn

release=$("$CUDA_HOME/bin/nvcc" --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p')
say "the programs are in $CARGO_TARGET_DIR/release"
say "to run they need an NVIDIA driver that knows CUDA $release (nvidia-smi shows it), and in LD_LIBRARY_PATH the folders with"
say "libcublas, libcurand, libcudart, libnvrtc and libcudnn of CUDA ${release%%.*}. Either of these has them:"
say "  a PyTorch installation for CUDA ${release%%.*}: all of its .../site-packages/nvidia/*/lib"
say "  the toolkit of this build: $CUDA_HOME/lib (without its stubs/)"
