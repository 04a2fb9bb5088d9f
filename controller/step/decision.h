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

// What a policy is asked with. A session that is learned from draws its choices.
inline StepContext context_of(const Session& session, const wire::Observation& observation,
                              std::size_t slot, std::span<const float> query) {
  return {.session = session.open.session,
          .step = observation.step,
          .seed = slot_seed(session.open.seed, slot),
          .entropy = observation.entropy,
          .surprise = observation.surprise,
          .steps_since_swap = observation.steps_since_swap,
          .query = query,
          .explore = session.open.explore || session.recorder.has_value()};
}

}  // namespace memslot
