#pragma once
// Immutable bytes that several owners may hold at once: a payload that waits in several peers'
// queues, a frame that the transport still sends while the caller has moved on.
//
// Threads: share freely.
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

namespace memslot {

using SharedBytes = std::shared_ptr<const std::vector<std::byte>>;

inline SharedBytes share_bytes(std::vector<std::byte> bytes) {
  return std::make_shared<const std::vector<std::byte>>(std::move(bytes));
}

}  // namespace memslot
