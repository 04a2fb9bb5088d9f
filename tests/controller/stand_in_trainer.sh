#!/bin/bash
# In the place of memslot-rl: what it is to do is the option --seed.
#   train TABLE --out FILE [--OPTION VALUE]... [--resume]
#   eval TABLE POLICY --out FOLDER
if [ "$1" = eval ]; then
  [ ! -e "$(dirname "$3")/no-eval" ] || { echo "memslot: no streams to compare on"; exit 14; }
  mkdir -p "$5"
  echo '{"selectors": {}}' >"$5/report.json"
  exit 0
fi
out=$4 run=$(dirname "$4") seed=
echo "$*" >>"$run/words"
for ((i = 1, j = 2; i < $#; ++i, ++j)); do [ "${!i}" != --seed ] || seed=${!j}; done
case $seed in
  2) # refuses
    echo "memslot: --gamma: expected less"
    echo "Run with --help for more information."
    exit 2 ;;
  3) # goes on until it is asked to end; resumed, it ends
    trap 'echo state >"$out.state"; echo ended >"$run/ended"; exit 24' TERM
    printf '{"type":"start"}\n{"type":"look","update":20}\n' >"$out.curve.jsonl"
    case $* in *--resume*) ;; *) while :; do sleep 0.02; done ;; esac ;;
  6) kill -9 $$ ;;
  7) exit 3 ;;
  5) # is not compared
    touch "$run/no-eval" ;;
esac
echo '{"type":"look","update":40}' >>"$out.curve.jsonl"
echo policy >"$out"
