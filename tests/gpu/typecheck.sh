#!/bin/sh
# Type-checks everything behind the features `cuda` and `cudnn` where there is neither toolkit nor GPU: a stand-in for nvcc
# answers the build scripts, and nothing is linked. usage: typecheck.sh [--clippy]
set -eu
cd "$(dirname "$0")/../.."
root=$(pwd)

# A folder of its own: the stand-in's empty kernels must never get into a program.
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}/typecheck
export CARGO_TARGET_DIR
unset NVCC CUDA_PATH CUDA_ROOT CUDA_TOOLKIT_ROOT_DIR CUDNN_LIB NVCC_CCBIN CUDARC_CUDA_VERSION RUSTFLAGS
export CUDA_HOME="$root/tests/gpu/no-toolkit"
export CUDA_COMPUTE_CAP=80
export PATH="$CUDA_HOME:$PATH"

for features in cuda cudnn; do
  cargo check --release -p reid-train --features "$features"
done
