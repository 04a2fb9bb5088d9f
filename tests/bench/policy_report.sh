#!/usr/bin/env bash
# From one file of articles to the figures of the policy: learns the memories, makes the gain table,
# trains five seeds, has a session follow what they and the rules choose, evaluates them on test
# streams in all modes, and holds the result against the targets.
#
#   tests/bench/policy_report.sh TEXT OUT [GAINS_OPTION...]
#
#   TEXT           articles in WikiText's form ( = Title = )
#   OUT            a folder for everything: report.json, report.html, gains.safetensors,
#                  policy-N.safetensors with curves, measured.jsonl (mode activated), bank/, logs/
#   GAINS_OPTION   of `memslot gains` (--kind mlp, --memories-each 4, ...); the same for every call
#                  with one OUT
#
# It starts a controller and a generator of its own and stops them. Ended at any point, the same call
# goes on where it was. Exit code: 0 every target is met, 1 one is missed or something is not there, 2
# usage. Environment: MEMSLOT_BUILD, MEMSLOT_MODEL, SEEDS (default "1 2 3 4 5"), JOBS (trainings at
# once; default: cores), TRAIN_OPTIONS (of `memslot train`).
set -euo pipefail
. "$(cd "$(dirname "$0")/../.." && pwd)/cmake/setup.sh"

case ${1:-} in --help|-h) sed -n '2,18s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
if [ $# -lt 2 ]; then say "usage: tests/bench/policy_report.sh TEXT OUT [GAINS_OPTION...] (--help)"; exit 2; fi
TEXT=$1 OUT=$2
shift 2
BIN=$MEMSLOT_BUILD/bin
MODEL=${MEMSLOT_MODEL:-$MODEL_DEFAULT}
SEEDS=${SEEDS:-1 2 3 4 5}
JOBS=${JOBS:-$(nproc)}
read -ra TRAIN_OPTIONS <<<"${TRAIN_OPTIONS:-}"
# Several processes share the cores: OpenMP's threads must sleep while they wait.
export OMP_WAIT_POLICY=passive

[ -f "$TEXT" ] || die "TEXT: expected a file, found nothing at $TEXT"
[ -e "$MODEL" ] || die "model: expected a file, found nothing at $MODEL"
for program in memslot memslot-controller memslot-generator memslot-gains memslot-rl; do
  [ -x "$BIN/$program" ] || die "expected $BIN/$program: build first (./test.sh does)"
done
mkdir -p "$OUT/logs"
OUT=$(cd "$OUT" && pwd)
exec 9>"$OUT/lock"
flock -n 9 || die "another report is being made in $OUT"

# One folder is of one text and one set of options.
WANTED=$({ sha256sum <"$TEXT"; printf '%s\n' "$@"; } | sha256sum | cut -d' ' -f1)
if [ "$(cat "$OUT/of" 2>/dev/null || echo "$WANTED")" != "$WANTED" ]; then
  die "$OUT: expected a report of this text and these options, found another (take a new folder)"
fi
echo "$WANTED" >"$OUT/of"

SOCKETS=$(mktemp -d)
PIDS=()
finish() {
  local pid
  for pid in "${PIDS[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${PIDS[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$SOCKETS"
}
trap finish EXIT
trap 'exit 130' INT TERM

start() {  # PROGRAM OPTION...: waits for its ready line
  local name=$1 pid
  shift
  "$BIN/memslot-$name" "$@" >"$OUT/logs/$name.log" 2>&1 </dev/null 9>&- &
  pid=$!
  PIDS+=("$pid")
  for _ in $(seq 1200); do
    grep -q ' ready ' "$OUT/logs/$name.log" && return 0
    kill -0 "$pid" 2>/dev/null || die "$name ended: $(tail -n 1 "$OUT/logs/$name.log")"
    sleep 0.1
  done
  die "$name: expected ready within 120 s (log: $OUT/logs/$name.log)"
}

with_pair() {  # COMMAND...: while a controller and a generator run
  local pid
  export MEMSLOT_ENDPOINT=ipc://$SOCKETS/link
  start controller --endpoint "$MEMSLOT_ENDPOINT" --bank "$OUT/bank"
  start generator --endpoint "$MEMSLOT_ENDPOINT" --model "$MODEL"
  for round in $(seq 600); do
    "$BIN/memslot" status >/dev/null 2>&1 && break
    [ "$round" -lt 600 ] || die "expected the generator at the controller within 60 s"
    sleep 0.1
  done
  "$@" 9>&- &
  PIDS+=($!)
  wait "${PIDS[-1]}"
  for pid in "${PIDS[@]:0:2}"; do kill "$pid" && wait "$pid" || true; done
  PIDS=()
}

if [ ! -f "$OUT/gains.safetensors" ]; then
  say "memories and gain table (hours on two cores for 60 articles)"
  with_pair "$BIN/memslot" gains "$TEXT" "$OUT/gains.safetensors" "$@"
fi

train() {  # SEED
  local out=$OUT/policy-$1.safetensors more=()
  if [ -f "$out" ] && tail -n 1 "$out.curve.jsonl" 2>/dev/null | grep -q '"type":"end"'; then return 0; fi
  [ -f "$out.state" ] && more=(--resume)
  exec "$BIN/memslot" train "$OUT/gains.safetensors" --out "$out" --seed "$1" "${more[@]}" \
    "${TRAIN_OPTIONS[@]}" >"$OUT/logs/train-$1.log" 2>&1 </dev/null 9>&-
}
RUNNING=0
for seed in $SEEDS; do
  say "training seed $seed (log: $OUT/logs/train-$seed.log)"
  train "$seed" &
  PIDS+=($!)
  RUNNING=$((RUNNING + 1))
  if [ "$RUNNING" -ge "$JOBS" ]; then
    wait -n || die "training: see $OUT/logs"
    RUNNING=$((RUNNING - 1))
  fi
done
for pid in "${PIDS[@]}"; do wait "$pid" || die "training: see $OUT/logs"; done
PIDS=()

POLICIES=()
for seed in $SEEDS; do POLICIES+=("$OUT/policy-$seed.safetensors"); done
say "what the choices are worth where a swap leaves the cache as it is (mode activated)"
"$BIN/memslot" eval "$OUT/gains.safetensors" "${POLICIES[@]}" --schedules "$OUT/schedules.jsonl" \
  >"$OUT/logs/schedules.log"
with_pair "$BIN/memslot" measure "$OUT/gains.safetensors" "$OUT/schedules.jsonl" "$OUT/measured.jsonl"
"$BIN/memslot" eval "$OUT/gains.safetensors" "${POLICIES[@]}" --activated "$OUT/measured.jsonl" \
  --out "$OUT" | tee "$OUT/report.txt"
! grep -q 'MISSED$' "$OUT/report.txt"
