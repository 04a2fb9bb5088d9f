#pragma once
// Messages of the link itself: who a peer is, that it lives, that something went wrong.
//
// Threads: values.
#include <cstdint>
#include <string>
#include <vector>

#include "shared/base/error.h"
#include "shared/memory/record.h"

namespace memslot::wire {

enum class PeerRole : std::uint8_t { kGenerator = 1, kClient = 2 };

// A place in the model that a generator offers.
struct SlotInfo {
  std::int32_t layer = 0;
  MlpForm form = MlpForm::kSwiGlu;
  std::int32_t d_model = 0;
  std::int32_t d_ff = 0;
  friend bool operator==(const SlotInfo&, const SlotInfo&) = default;
};

struct Hello {
  PeerRole role = PeerRole::kClient;
  std::uint64_t incarnation = 0;  // random at process start
  std::string build;              // version and commit
  Sha256 model;                   // generators only, as the next three
  std::string model_name;
  std::vector<SlotInfo> slots;
  std::uint32_t learn_workers = 0;  // learn jobs that it takes at once
  friend bool operator==(const Hello&, const Hello&) = default;
};
struct HelloReply {
  std::uint64_t incarnation = 0;
  std::string build;
  std::uint32_t heartbeat_ms = 0;  // a peer that is silent for four of them is lost
  friend bool operator==(const HelloReply&, const HelloReply&) = default;
};
struct Heartbeat {
  std::uint64_t incarnation = 0;
  friend bool operator==(const Heartbeat&, const Heartbeat&) = default;
};
struct ErrorReply {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
  friend bool operator==(const ErrorReply&, const ErrorReply&) = default;
};

}  // namespace memslot::wire
