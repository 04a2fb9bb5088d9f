#pragma once
// What a slot's policy decided, before payloads: internal to step_handler.cc and session_policy.cc.
//
// Threads: values.
#include "controller/step/candidates.h"
#include "controller/step/step_handler.h"

namespace memslot {

struct StepHandler::Decision {
  wire::ActionKind action = wire::ActionKind::kKeep;
  MemoryVersion version;  // for kUse
  bool resident = false;
  float log_prob = 0;
  std::uint32_t candidates = 0;

  static Decision of(const Choice& choice, const CandidateList& list);
};

struct StepHandler::Policy {
  std::string spec;  // what finds it again, also after a restart
  std::shared_ptr<const SelectionPolicy> policy;
  SnapshotPtr learned;  // null: a rule
};

// Slots of one session draw different numbers from one seed; slot 0 the session's own.
inline std::uint64_t slot_seed(std::uint64_t seed, std::size_t slot) {
  return seed + static_cast<std::uint64_t>(slot) * 0x9E3779B97F4A7C15ULL;
}

inline const wire::ActiveMemory* active_in(const wire::Observation& observation, std::size_t slot) {
  for (const wire::ActiveMemory& active : observation.active) {
    if (active.slot == slot) return &active;
  }
  return nullptr;
}

}  // namespace memslot
