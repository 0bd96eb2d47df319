#!/bin/sh
# Lints everything behind the features `cuda` and `cudnn` where there is neither toolkit nor GPU: a stand-in for nvcc answers the
# build scripts, and nothing is linked.
set -eu
cd "$(dirname "$0")/../.."
root=$(pwd)

# The stand-in's kernels are empty and must never get into a program. Where there is no toolkit, none can be built beside them,
# and what other checks have left in the target folder is used again. Where there is one, this keeps to a folder of its own.
if command -v nvcc >/dev/null 2>&1 || [ -n "${CUDA_HOME:-}${CUDA_PATH:-}${NVCC:-}" ]; then
  CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}/typecheck
  export CARGO_TARGET_DIR
fi
unset NVCC CUDA_PATH CUDA_ROOT CUDA_TOOLKIT_ROOT_DIR CUDNN_LIB NVCC_CCBIN CUDARC_CUDA_VERSION
export CUDA_HOME="$root/tests/gpu/no-toolkit"
export PATH="$CUDA_HOME:$PATH"
# No GPU has this number. Build scripts run again when it changes, so a toolkit installed later compiles the kernels anew.
export CUDA_COMPUTE_CAP=79

cargo clippy --release --workspace --all-targets --features reid-train/cuda,reid-train/cudnn -- -D warnings
# Without cuDNN, too.
cargo check --release --workspace --features reid-train/cuda
