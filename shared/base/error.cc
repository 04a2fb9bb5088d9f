#include "shared/base/error.h"

#include <cstdio>
#include <cstdlib>

namespace memslot {

std::string_view error_code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument: return "invalid_argument";
    case ErrorCode::kNotFound: return "not_found";
    case ErrorCode::kCorruption: return "corruption";
    case ErrorCode::kMismatch: return "mismatch";
    case ErrorCode::kConflict: return "conflict";
    case ErrorCode::kIndeterminate: return "indeterminate";
    case ErrorCode::kUnavailable: return "unavailable";
    case ErrorCode::kTimeout: return "timeout";
    case ErrorCode::kOverloaded: return "overloaded";
    case ErrorCode::kNoSpace: return "no_space";
    case ErrorCode::kBusy: return "busy";
    case ErrorCode::kIo: return "io";
    case ErrorCode::kNotSupported: return "not_supported";
    case ErrorCode::kCancelled: return "cancelled";
    case ErrorCode::kPermission: return "permission";
    case ErrorCode::kInternal: return "internal";
  }
  return "unknown";
}

// 10 + code leaves 1 (unexpected) and 2 (usage) free and stays clear of the shell's 126 and above.
int exit_code(ErrorCode code) { return 10 + static_cast<int>(code); }

Error Error::with_context(std::string_view context) const {
  return {code, std::string(context) + ": " + message};
}

void check_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "memslot: check failed: %s at %s:%d\n", condition, file, line);
  std::abort();
}

namespace error_internal {
std::string expected_found(std::string_view what, const std::string& expected,
                           const std::string& found) {
  return std::string(what) + ": expected " + expected + ", found " + found;
}
}  // namespace error_internal

}  // namespace memslot
