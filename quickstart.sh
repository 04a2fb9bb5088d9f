#!/usr/bin/env bash
# From a fresh Debian 12 machine to the main job: installs what is missing, fetches the model, builds,
# starts controller and generator, learns the sample sources, and shows update and recover memory.
#
#   ./quickstart.sh [--model FILE] [--kind mlp|lora] [--keep] [--stop] [--uninstall] [--help]
#
#   --model FILE   use this model file instead of fetching the default one
#   --kind KIND    which kind of memory to learn (default mlp)
#   --keep         leave controller and generator running at the end, and say how to reach them
#   --stop         stop a kept pair; all that it learned stays, and --keep goes on with it
#   --uninstall    stop a kept pair; remove build, cache (the model) and data (the bank); nothing else
#
# Environment: MEMSLOT_CACHE, MEMSLOT_BUILD (cmake/setup.sh).
set -euo pipefail
. "$(cd "$(dirname "$0")" && pwd)/cmake/setup.sh"

DATA=$MEMSLOT_CACHE/quickstart
MODEL= KIND=mlp KEEP=0 STOP=0 UNINSTALL=0
while [ $# -gt 0 ]; do
  case $1 in
    --model) [ $# -ge 2 ] || die "--model: expected a file"; MODEL=$2; shift ;;
    --kind) [ $# -ge 2 ] || die "--kind: expected mlp or lora"; KIND=$2; shift ;;
    --keep) KEEP=1 ;;
    --stop) STOP=1 ;;
    --uninstall) UNINSTALL=1 ;;
    --help|-h) sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) say "unknown option: $1 (see --help)"; exit 2 ;;
  esac
  shift
done
case $KIND in mlp|lora) ;; *) say "--kind: expected mlp or lora, found $KIND"; exit 2 ;; esac

# Stops what an earlier --keep left running, by its recorded process ids.
stop_kept() {
  local name pid program
  for name in generator controller; do
    [ -f "$DATA/$name.pid" ] || continue
    pid=$(cat "$DATA/$name.pid")
    # Only if the id still belongs to our program: ids are reused. A build since then replaced its file.
    program=$(readlink "/proc/$pid/exe" 2>/dev/null || true)
    program=${program% (deleted)}
    if [ "${program##*/}" = "memslot-$name" ]; then
      kill "$pid" 2>/dev/null || true
      for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    fi
    rm -f "$DATA/$name.pid"
  done
}

if [ "$STOP" = 1 ]; then
  stop_kept
  exit 0
fi

if [ "$UNINSTALL" = 1 ]; then
  stop_kept
  for directory in "$DATA" "$MEMSLOT_CACHE/model" "$MEMSLOT_CACHE" "$MEMSLOT_BUILD"; do
    remove_directory "$directory"
  done
  rmdir "$MEMSLOT_ROOT/build" 2>/dev/null || true
  say "removed build, cache and data (apt packages stay)"
  exit 0
fi

install_packages
if [ -z "$MODEL" ]; then
  fetch_model
  MODEL=$MODEL_DEFAULT
fi
[ -e "$MODEL" ] || die "model: expected a file, found nothing at $MODEL"
configure_and_build -- memslot memslot-controller memslot-generator memslot-gains memslot-rl

own_directory "$MEMSLOT_CACHE"
own_directory "$DATA"
exec 9>"$DATA/lock"
flock -n 9 || die "another quickstart is running (lock: $DATA/lock)"
stop_kept
rm -f "$DATA"/*.out
CONTROLLER_PID= GENERATOR_PID= DEMO_PID=
finish() {
  local pid
  for pid in $DEMO_PID $GENERATOR_PID $CONTROLLER_PID; do kill "$pid" 2>/dev/null || true; done
  for pid in $DEMO_PID $GENERATOR_PID $CONTROLLER_PID; do wait "$pid" 2>/dev/null || true; done
  rm -f "$DATA/link.sock" "$DATA"/*.pid
}
trap finish EXIT
trap 'exit 130' INT TERM

# A socket's path has room for 107 bytes; under a long home, the loopback interface serves.
MEMSLOT_ENDPOINT=ipc://$DATA/link.sock
[ ${#MEMSLOT_ENDPOINT} -le 100 ] || MEMSLOT_ENDPOINT=tcp://127.0.0.1:7400
export MEMSLOT_ENDPOINT
# Over HTTP nobody else on this host gets in either.
if [ ! -s "$DATA/generator.tokens" ]; then
  (umask 077; od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$DATA/generator.tokens")
fi
HTTP_TOKEN=$(cat "$DATA/generator.tokens")
(umask 077; echo "$HTTP_TOKEN *" >"$DATA/controller.tokens")
"$MEMSLOT_BUILD/bin/memslot-controller" --endpoint "$MEMSLOT_ENDPOINT" --bank "$DATA/bank" \
  --http auto --http-tokens "$DATA/controller.tokens" \
  >"$DATA/controller.out" 2>"$DATA/controller.log" </dev/null 9>&- &
CONTROLLER_PID=$!
"$MEMSLOT_BUILD/bin/memslot-generator" --endpoint "$MEMSLOT_ENDPOINT" --model "$MODEL" \
  --http auto --http-tokens "$DATA/generator.tokens" \
  >"$DATA/generator.out" 2>"$DATA/generator.log" </dev/null 9>&- &
GENERATOR_PID=$!

# Waits for a process's ready line; shows its log if it ends instead.
await() {
  local name=$1 pid=$2
  for _ in $(seq 600); do
    grep -q ready "$DATA/$name.out" 2>/dev/null && return 0
    if ! kill -0 "$pid" 2>/dev/null; then
      tail -5 "$DATA/$name.log" >&2
      die "$name ended before it was ready (log: $DATA/$name.log)"
    fi
    sleep 0.1
  done
  die "$name: expected ready within 60 s (log: $DATA/$name.log)"
}
await controller "$CONTROLLER_PID"
await generator "$GENERATOR_PID"
# Its link comes up on its own: on a busy machine a moment after it is ready.
for round in $(seq 300); do
  "$MEMSLOT_BUILD/bin/memslot" status >/dev/null 2>"$DATA/status.log" && break
  [ "$round" -lt 300 ] || die "expected the generator at the controller, found: $(tail -1 "$DATA/status.log")"
  sleep 0.1
done

# Beside this shell, which would answer a signal only after it: learning takes minutes.
"$MEMSLOT_BUILD/bin/memslot" demo --kind "$KIND" "$MEMSLOT_ROOT/samples" 9>&- &
DEMO_PID=$!
wait "$DEMO_PID"
DEMO_PID=

if [ "$KEEP" = 1 ]; then
  echo "$CONTROLLER_PID" >"$DATA/controller.pid"
  echo "$GENERATOR_PID" >"$DATA/generator.pid"
  trap - EXIT
  say ""
  say "The pair keeps running. Try:"
  say "  export MEMSLOT_ENDPOINT=$MEMSLOT_ENDPOINT"
  say "  $MEMSLOT_BUILD/bin/memslot bank ls"
  say "  $MEMSLOT_BUILD/bin/memslot generate --stream 'The Skerrow Light'"
  # Where another process has the port, nothing is served (and the log says so).
  inspector=$(sed -n 's/.* http=\([^ ]*\).*/\1/p' "$DATA/controller.out")
  openai=$(sed -n 's/.* http=\([^ ]*\).*/\1/p' "$DATA/generator.out")
  [ -z "$inspector" ] || say "  the inspector: $inspector#token=$HTTP_TOKEN"
  [ -z "$openai" ] || say "  OpenAI's API: http://$openai/v1 (key: $HTTP_TOKEN)"
  say "Stop it with ./quickstart.sh --stop (--keep goes on with what was learned; --uninstall removes everything)."
fi
