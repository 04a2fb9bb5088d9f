#include "generator/backend/thread_team.h"

#include <omp.h>

namespace memslot {

void release_thread_team() {
  if (omp_in_parallel() != 0) return;
  static_cast<void>(omp_pause_resource_all(omp_pause_soft));
}

}  // namespace memslot
