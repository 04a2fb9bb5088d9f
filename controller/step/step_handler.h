#pragma once
// Observation in, directive out: the function that replay feeds from a trace. No sockets, no wall
// clock; the deadline only bounds reads from the bank.
//
//   per slot: candidates = base, current, the K - 2 nearest (or, before a first summary, K - 2
//   drawn by the session's seed) -> policy -> keep | base | use (id, version), with the payload
//   only if the generator does not hold it
//
// Only memories that a session sees, that fit the slot and that a policy may swap (stateless kinds;
// a fixed policy may name a stateful one) are candidates. What the user pinned is kept.
//
// (session, step) is idempotent: the newest step's directive is kept and given again. A handler
// that has just started recomputes it, the log-probability included, in every bit: policies draw by
// (seed, session, step), and the observation after an opening brings the whole window, the whole
// resident set, what is active and for how long. What it rests on besides is the index: where
// memories were published or their statistics moved meanwhile, the new directive may be another.
//
// Threads: one at a time.
#include <string>
#include <vector>

#include "controller/session/session_table.h"
#include "controller/step/index_keeper.h"
#include "controller/step/payload_cache.h"

namespace memslot {

struct StepOptions {
  std::string default_policy = "nearest";
  std::size_t candidates = kMaxCandidates;  // K, 2 to kMaxCandidates
  std::uint32_t window_tokens = 32;         // of the query
};

struct StepCounters {
  std::uint64_t steps = 0, repeated = 0, keep = 0, base = 0, use = 0;
  std::uint64_t resident = 0;        // uses without a payload
  std::uint64_t payload_bytes = 0;   // sent with directives
  std::uint64_t residents_lost = 0;  // deltas that did not fit
  std::uint64_t payload_failed = 0;  // chosen, but not readable: kept instead
};

class StepHandler {
 public:
  struct Plan {
    wire::Directive directive;
    std::vector<SharedBytes> parts;
  };

  // Everything must outlive the handler.
  StepHandler(MemoryBank& bank, IndexKeeper& keeper, PayloadCache& payloads, SessionTable& sessions,
              StepOptions options);

  // kInvalidArgument (policy), kNotFound and kMismatch (a fixed policy's memory), kOverloaded,
  // kConflict.
  Result<wire::OpenSessionReply> open(const PeerId& peer, const wire::OpenSession& request,
                                      TimePoint deadline);
  // kNotFound (session: open it again), kMismatch (sizes), kInvalidArgument (slots), kConflict (a
  // step older than the newest).
  Result<Plan> handle(const PeerId& peer, const wire::Observation& observation, TimePoint deadline);
  // The memory by name: head, or the version named. kNotFound, kMismatch (fits no slot).
  struct Fetched {
    wire::MemoryReply reply;
    SharedBytes payload;
  };
  Result<Fetched> fetch(const PeerId& peer, const wire::FetchMemory& request, TimePoint deadline);
  Result<wire::CloseSessionReply> close(const PeerId& peer, const wire::CloseSession& request);

  const StepCounters& counters() const { return counters_; }

 private:
  struct Query;
  struct Decision;
  Result<MemoryVersion> resolve(const Session& session, const MemoryRef& ref, TimePoint deadline);
  Status check(const Session& session, const wire::Observation& observation) const;
  Query query_of(const Session& session, std::size_t slot) const;
  Decision decide(const Session& session, const wire::Observation& observation, std::size_t slot);
  void note_outcome(const Session& session, const wire::Observation& observation);
  void add_action(Decision decision, std::size_t slot, Plan& plan, TimePoint deadline);
  Plan repeat(const Session& session, TimePoint deadline);

  MemoryBank& bank_;
  IndexKeeper& keeper_;
  PayloadCache& payloads_;
  SessionTable& sessions_;
  const StepOptions options_;
  StepCounters counters_;
};

// The space of a session's slot.
SpaceKey space_of(const wire::OpenSession& session, const wire::SlotInfo& slot);

}  // namespace memslot
