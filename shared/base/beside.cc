#include "shared/base/beside.h"

#include <filesystem>

namespace memslot {

std::string path_beside_this(const std::string& name) {
  std::error_code failure;
  const auto own = std::filesystem::read_symlink("/proc/self/exe", failure);
  return failure ? "" : (own.parent_path() / name).string();
}

}  // namespace memslot
