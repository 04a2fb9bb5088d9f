#pragma once
// What this build is: "0.1.0+<commit>", the commit being "unknown" outside a checkout.
#include <string_view>

namespace memslot {
std::string_view build_version();
}
