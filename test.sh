#!/usr/bin/env bash
# Sets the machine up and runs the tests.
#
#   ./test.sh [--full] [CTEST_ARGUMENT...]
#
#   --full   also the long counts (1,000 swap schedules, 50 kill -9 rounds, ...), with a log that
#            names commit and machine: test-full.log
#
# Skipped tests are listed with their reasons. Environment: MEMSLOT_FIXTURES (another fixture set),
# MEMSLOT_MODEL, MEMSLOT_TEST_SEED, MEMSLOT_CACHE, MEMSLOT_BUILD.
set -euo pipefail
. "$(cd "$(dirname "$0")" && pwd)/cmake/setup.sh"

FULL=0
if [ "${1:-}" = --full ]; then FULL=1; shift; fi
case ${1:-} in --help|-h) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;; esac

install_packages
export MEMSLOT_MODEL=${MEMSLOT_MODEL:-$MODEL_DEFAULT}
[ -e "$MEMSLOT_MODEL" ] || fetch_model
say "building"
configure_and_build -DMEMSLOT_TESTS=ON

# Two OpenMP teams that spin for each other's core take a hundred times as long: wait asleep instead.
export OMP_WAIT_POLICY=passive
run_tests() { ctest --test-dir "$MEMSLOT_BUILD" --output-on-failure --no-tests=error -j2 "$@"; }

if [ "$FULL" = 0 ]; then
  # No bf16 and no row invariance there: what then must hold is tested too, in the same run.
  DNNL_MAX_CPU_ISA=AVX2 run_tests -L golden "$@"
  run_tests -LE slow "$@"
  exit 0
fi

LOG=$MEMSLOT_ROOT/test-full.log
{
  echo "commit  $(git -C "$MEMSLOT_ROOT" describe --always --dirty 2>/dev/null || echo unknown)"
  echo "date    $(date -u +%Y-%m-%dT%H:%M:%SZ)"
  echo "machine $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(nproc) cores, $(awk '/MemTotal/{printf "%.0f GiB", $2/1048576}' /proc/meminfo)"
} | tee "$LOG"
export MEMSLOT_FULL=1
DNNL_MAX_CPU_ISA=AVX2 run_tests -L golden "$@" 2>&1 | tee -a "$LOG"
run_tests "$@" 2>&1 | tee -a "$LOG"
