#pragma once
// The one place that chooses a backend.
#include <memory>
#include <string>

#include "generator/backend/backend.h"

namespace memslot {

struct BackendOptions {
  std::string name = "cpu";
  int threads = 0;  // 0: as many as the machine has cores
};

// kInvalidArgument (unknown name), kNotSupported (built without it, or no such device).
Result<std::unique_ptr<Backend>> open_backend(const BackendOptions& options);

}  // namespace memslot
