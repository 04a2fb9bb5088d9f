#pragma once
// Messages of learn jobs.
//
// Threads: values.
#include <cstdint>
#include <string>

#include "shared/base/error.h"
#include "shared/memory/record.h"

namespace memslot::wire {

struct AssignLearn {
  std::string job;
  std::uint64_t lease = 0;
  std::string ns;
  std::string source;
  std::string text;
  std::string config;    // JSON, learn/config.h
  MemoryRef target;      // the memory to make or to continue
  std::string expected;  // token of the head to replace, "" for a new memory
  friend bool operator==(const AssignLearn&, const AssignLearn&) = default;
};
struct LearnProgress {
  std::string job;
  std::uint64_t lease = 0;
  std::uint32_t step = 0;
  std::uint32_t steps = 0;  // the limit
  float loss = 0;           // nats per token
  float recall = 0;
  std::string phase;  // "queued", "reading", "training", "measuring", "delivering"
  friend bool operator==(const LearnProgress&, const LearnProgress&) = default;
};
struct LearnResult {  // parts[0] payload, parts[1] keys (f32, rows x d_model)
  std::string job;
  std::uint64_t lease = 0;
  MemoryVersion version;  // token: "<job>:<lease>"
  friend bool operator==(const LearnResult&, const LearnResult&) = default;
};
struct LearnFailed {
  std::string job;
  std::uint64_t lease = 0;
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
  friend bool operator==(const LearnFailed&, const LearnFailed&) = default;
};
struct LearnAck {  // answers LearnResult and LearnFailed
  std::string job;
  std::uint64_t lease = 0;
  bool accepted = false;  // false: the lease was fenced off; drop the result
  std::string message;
  friend bool operator==(const LearnAck&, const LearnAck&) = default;
};
struct CancelLearn {
  std::string job;
  std::uint64_t lease = 0;
  friend bool operator==(const CancelLearn&, const CancelLearn&) = default;
};

}  // namespace memslot::wire
