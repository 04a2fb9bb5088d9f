#include "generator/backend/open_backend.h"

#include "generator/cpu/cpu_backend.h"

namespace memslot {

Result<std::unique_ptr<Backend>> open_backend(const BackendOptions& options) {
  if (options.name == "cpu") {
    MEMSLOT_TRY(auto backend, CpuBackend::open(options.threads));
    return std::unique_ptr<Backend>(std::move(backend));
  }
  if (options.name == "cuda") {
    return Error{ErrorCode::kNotSupported, "backend: expected cpu, found cuda (not in this build)"};
  }
  return invalid("backend", "cpu", options.name);
}

}  // namespace memslot
