#pragma once
// Programs that are installed in one folder find each other.
//
// Threads: any.
#include <string>

namespace memslot {

// The path that a program called `name` has beside the running one; whether it is there is for the
// caller to see. "" where the system does not tell the running one's own.
std::string path_beside_this(const std::string& name);

}  // namespace memslot
