#!/bin/sh
# Puts what it takes to BUILD for NVIDIA GPUs into a folder: compiler, headers and libraries of CUDA 13.0, from NVIDIA's Python
# wheels. No GPU, no driver and no root needed; run it again and it does nothing.
# usage: toolkit.sh DIR, then: . DIR/env.sh && cargo build --release --workspace --features reid-train/cuda,reid-train/cudnn
set -eu

[ $# = 1 ] || { echo "usage: toolkit.sh DIR" >&2; exit 2; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)

# One minor version of everything CUDA: kernels travel as PTX, which a driver translates if it is at least as new as the compiler.
# 13.0 runs on every driver from 580 on. cuDNN and cuRAND have numbers of their own.
wheels="nvidia-cuda-nvcc==13.0.* nvidia-nvvm==13.0.* nvidia-cuda-crt==13.0.* nvidia-cuda-runtime==13.0.* nvidia-cuda-cccl==13.0.* \
nvidia-cublas==13.0.* nvidia-cuda-nvrtc==13.0.* nvidia-nvjitlink==13.0.* nvidia-curand==10.4.0.* nvidia-cudnn-cu13==9.21.*"

if [ -f "$dir/env.sh" ] && [ "$(cat "$dir/.wheels" 2>/dev/null)" = "$wheels" ]; then
  exit 0
fi
for tool in cc python3; do
  command -v $tool >/dev/null 2>&1 || { echo "toolkit.sh: $tool is missing (Debian: build-essential, python3)" >&2; exit 1; }
done
rm -rf "$dir/env.sh" "$dir/packages" "$dir/pip"
# pip itself, or an environment that brings it: either package of a distribution is enough.
if python3 -m pip --version >/dev/null 2>&1; then
  pip="python3 -m pip"
elif python3 -m venv "$dir/pip" >/dev/null 2>&1; then
  pip="$dir/pip/bin/python -m pip"
else
  echo "toolkit.sh: Python has neither pip nor venv (Debian: python3-pip or python3-venv)" >&2
  exit 1
fi
# --no-deps: the list above is complete. No compilation of the few Python files: nothing imports them.
# shellcheck disable=SC2086  # a command and a list of packages
$pip install -q --disable-pip-version-check --no-deps --no-compile --target "$dir/packages" $wheels

nvidia=$dir/packages/nvidia
home=$nvidia/cu13
[ -x "$home/bin/nvcc" ] || { echo "toolkit.sh: the wheels brought no $home/bin/nvcc" >&2; exit 1; }

# Wheels hold libNAME.so.N only, and cuDNN a folder of its own. A linker looks for libNAME.so, in one place.
for library in "$home"/lib/*.so.* "$nvidia"/*/lib/*.so.*; do
  [ -f "$library" ] || continue
  file=$(basename "$library")
  for name in "$file" "${file%%.so.*}.so"; do
    [ -e "$home/lib/$name" ] || ln -s "$library" "$home/lib/$name"
  done
done
for header in "$nvidia"/cudnn/include/*; do
  [ -e "$home/include/$(basename "$header")" ] || ln -s "$header" "$home/include/"
done
[ -e "$home/lib64" ] || ln -s lib "$home/lib64"

# libcuda comes with a driver, never with a toolkit. To link, a library with its names does: every function that cuda.h declares,
# each of them answering "this is a stub" (34). At run time the driver's own takes its place.
mkdir -p "$home/lib/stubs"
{
  cc -E "$home/include/cuda.h" | sed -n 's/.*CUresult *\(cu[A-Z][A-Za-z0-9_]*\) *(.*/\1/p' | sort -u |
    while read -r name; do echo "int $name(void) { return 34; }"; done
} >"$dir/stub.c"
cc -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$home/lib/stubs/libcuda.so" "$dir/stub.c"
rm "$dir/stub.c"

# LIBRARY_PATH, not flags for rustc: those would be part of every crate's fingerprint, and everything would be built again.
# 80: what is compiled for compute capability 8.0 runs on all newer ones, too.
cat >"$dir/env.sh" <<ENV
export CUDA_HOME="$home"
export CUDA_PATH="$home"
export PATH="$home/bin:\$PATH"
export LIBRARY_PATH="$home/lib:$home/lib/stubs\${LIBRARY_PATH:+:\$LIBRARY_PATH}"
export CUDA_COMPUTE_CAP="\${CUDA_COMPUTE_CAP:-80}"
ENV
echo "$wheels" >"$dir/.wheels"
