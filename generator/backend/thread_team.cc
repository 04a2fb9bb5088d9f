#include "generator/backend/thread_team.h"

#include <omp.h>
#include <unistd.h>

#include <climits>  // PATH_MAX
#include <cstdlib>

namespace memslot {

void bound_thread_spinning(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  if (std::getenv("GOMP_SPINCOUNT") != nullptr) return;  // the user's, or the second time
  if (::setenv("GOMP_SPINCOUNT", "2000", /*overwrite=*/0) != 0) return;
  // By its own path: by the link's the process would be called "exe" from then on.
  char path[PATH_MAX];
  const ssize_t length = ::readlink("/proc/self/exe", path, sizeof path - 1);
  if (length <= 0) return;
  path[length] = '\0';
  ::execv(path, argv);
}

void release_thread_team() {
  if (omp_in_parallel() != 0) return;
  static_cast<void>(omp_pause_resource_all(omp_pause_soft));
}

}  // namespace memslot
