#pragma once
// Replaces a file as a whole: written beside it, synced, renamed, the folder synced. A reader sees
// the old bytes or the new ones, also after kill -9 or a power cut.
//
// Errors:  kNoSpace, kIo, kPermission, naming the path; the old file stays.
// Threads: one writer for a path at a time.
#include <string>
#include <string_view>

#include "shared/base/error.h"

namespace memslot {

// `mode`: who may read and write it.
Status write_file(const std::string& path, std::string_view bytes, unsigned mode = 0644);

}  // namespace memslot
