#!/usr/bin/env bash
# Makes the virtual environment of the peers, outside the project, and prints its python.
#
#   tests/bench/peers/environment.sh [DIR]     (default: $MEMSLOT_CACHE/peers, see cmake/setup.sh)
#
# Does nothing when DIR already holds what requirements.txt names. The first time it downloads about
# 3 GB (torch's default wheel brings its CUDA libraries, unused here) and compiles llama.cpp for
# this machine (about 15 minutes on 2 cores). Needs python3 with venv, a C++ compiler and CMake.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${MEMSLOT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/memslot}
dir=${1:-$cache/peers}
wanted=$(sha256sum <"$here/requirements.txt" | cut -d' ' -f1)

if [ "$(cat "$dir/requirements.sha256" 2>/dev/null)" != "$wanted" ]; then
  if [ ! -x "$dir/bin/python" ]; then
    python3 -m venv "$dir" >&2 || { echo "peers: expected python3 with venv (Debian: python3-venv)" >&2; exit 1; }
  fi
  echo "peers: installing into $dir (the first time: 3 GB and a native build of llama.cpp)" >&2
  # Native, because that is what a person would run who wants speed; two jobs, to leave memory alone.
  CMAKE_ARGS="-DGGML_NATIVE=ON" CMAKE_BUILD_PARALLEL_LEVEL=2 \
    "$dir/bin/python" -m pip install --quiet --no-binary llama-cpp-python -r "$here/requirements.txt" >&2
  echo "$wanted" >"$dir/requirements.sha256"
fi
echo "$dir/bin/python"
