#pragma once
// CURVE keys: who may talk on a link that leaves the host.
//
// File of a key pair (made with mode 0600, refused with any other access for group or others):
//   memslot-key 1
//   public <40 characters of Z85>
//   secret <40 characters of Z85>
// Beside it, `<path>.pub` holds the public line's key alone, to be handed to the other side.
// File of an allow-list: one public key a line; '#' begins a comment.
//
// Threads: pure functions and file I/O; any thread.
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/error.h"

namespace memslot {

struct KeyPair {
  std::string public_key;  // Z85
  std::string secret_key;  // Z85
};

// kNotSupported if this ZeroMQ was built without CURVE.
Result<KeyPair> generate_keypair();

// Generates a pair into `path` and `path`.pub. kConflict if either exists (a key is never
// overwritten), kIo.
Result<KeyPair> write_keypair(const std::string& path);

// kNotFound, kPermission (mode), kCorruption (content).
Result<KeyPair> read_keys(const std::string& path);

// Public keys, one a line. kNotFound, kCorruption naming the line.
Result<std::vector<std::string>> read_public_keys(const std::string& path);

// kInvalidArgument unless `key` is 40 characters of Z85.
Status check_key(std::string_view what, std::string_view key);

}  // namespace memslot
