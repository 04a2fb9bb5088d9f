#include "generator/backend/thread_team.h"

#include <omp.h>
#include <unistd.h>

#include <cstdlib>

namespace memslot {

void bound_thread_spinning(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  if (std::getenv("GOMP_SPINCOUNT") != nullptr) return;  // the user's, or the second time
  if (::setenv("GOMP_SPINCOUNT", "2000", /*overwrite=*/0) != 0) return;
  ::execv("/proc/self/exe", argv);
}

void release_thread_team() {
  if (omp_in_parallel() != 0) return;
  static_cast<void>(omp_pause_resource_all(omp_pause_soft));
}

}  // namespace memslot
