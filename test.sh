#!/usr/bin/env bash
# Sets the machine up and runs the tests.
#
#   ./test.sh [--full] [CTEST_ARGUMENT...]
#
#   --full   also the long counts (1,000 swap schedules, 50 kill -9 rounds, ...) and every program
#            that measures, held against its target (tests/bench/acceptance.py: about half an hour
#            on a machine that should be left alone meanwhile), with a log that names commit and
#            machine: test-full.log. Ends with ctest's totals of all passes and what failed.
#
# Skipped tests are listed with their reasons. Environment: MEMSLOT_FIXTURES (another fixture set),
# MEMSLOT_TEXT (WikiText-2's validation text, for --full), MEMSLOT_MODEL, MEMSLOT_TEST_SEED,
# MEMSLOT_CACHE, MEMSLOT_BUILD.
set -euo pipefail
. "$(cd "$(dirname "$0")" && pwd)/cmake/setup.sh"

FULL=0
if [ "${1:-}" = --full ]; then FULL=1; shift; fi
case ${1:-} in --help|-h) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;; esac

install_packages
export MEMSLOT_MODEL=${MEMSLOT_MODEL:-$MODEL_DEFAULT}
[ -e "$MEMSLOT_MODEL" ] || fetch_model
say "building"
if [ "$FULL" = 1 ]; then
  configure_and_build -DMEMSLOT_TESTS=ON -DMEMSLOT_BENCH=ON
else
  configure_and_build -DMEMSLOT_TESTS=ON
fi

# Two OpenMP teams that spin for each other's core take a hundred times as long: wait asleep instead.
run_tests() {
  OMP_WAIT_POLICY=passive ctest --test-dir "$MEMSLOT_BUILD" --output-on-failure --no-tests=error -j2 "$@"
}
# No bf16 and no row invariance there: what then must hold is tested too, in the same run.
run_tests_avx2() { DNNL_MAX_CPU_ISA=AVX2 run_tests -R "$COMPUTING" "$@"; }
# The tests that compute with the model: golden ones, and those of bits, swaps and recovery.
readonly COMPUTING='golden|row_invariance|gpt_bits|runtime_(session|swaps|recovery)|smollm_swaps|e2e_pair'

if [ "$FULL" = 0 ]; then
  run_tests_avx2 -LE slow "$@"
  run_tests -LE slow "$@"
  exit 0
fi

readonly LOG=$MEMSLOT_ROOT/test-full.log
FAILED=()
pass() {  # NAME COMMAND...: into the log, and on to the next whatever comes
  echo "== $1" | tee -a "$LOG"
  "${@:2}" 2>&1 | tee -a "$LOG" || FAILED+=("$1")
}
{
  echo "commit  $(git -C "$MEMSLOT_ROOT" describe --always --dirty 2>/dev/null || echo unknown)"
  echo "date    $(date -u +%Y-%m-%dT%H:%M:%SZ)"
  echo "machine $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(nproc) cores, $(awk '/MemTotal/{printf "%.0f GiB", $2/1048576}' /proc/meminfo)"
} | tee "$LOG"
export MEMSLOT_FULL=1
TEXT=${MEMSLOT_TEXT:-$MEMSLOT_ROOT/../shared/data/wikitext2-valid.txt}
pass "measurements" "$MEMSLOT_ROOT/tests/bench/acceptance.py" --build "$MEMSLOT_BUILD" --text "$TEXT" \
  --json "$MEMSLOT_BUILD/acceptance.json"
pass "tests under AVX2" run_tests_avx2 "$@"
pass "tests" run_tests "$@"
echo "== summary" | tee -a "$LOG"
grep -E '^[0-9]+% tests passed|targets met|^NOT MEASURED' "$LOG" | sort -u | tee -a "$LOG"
if [ ${#FAILED[@]} -gt 0 ]; then
  printf 'FAILED: %s\n' "${FAILED[@]}" | tee -a "$LOG"
  exit 1
fi
