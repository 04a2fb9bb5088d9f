#pragma once
// Observation in, directive out: the function that replay feeds from a trace. No sockets, no wall
// clock; the deadline only bounds reads from the bank.
//
//   per slot: candidates = base, current, the K - 2 nearest (or, before a first summary, K - 2
//   drawn by the session's seed) -> policy -> keep | base | use (id, version), with the payload
//   only if the generator does not hold it
//
// A session of the learned policy keeps the snapshot, window and whitening that it began with: its
// query and the candidates' similarities are of that whitening, whatever the index has meanwhile
// (own_keys.h). It chooses in the lowest slot, which it was trained for; the others keep what they
// have. With online learning it draws its actions, and what they were worth goes to the learner.
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
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "controller/policy/online_learning.h"
#include "controller/session/session_table.h"
#include "controller/step/index_keeper.h"
#include "controller/step/own_keys.h"
#include "controller/step/payload_cache.h"

namespace memslot {

// The learned policy of this controller; its parts must outlive the handler.
struct LearnedParts {
  PolicyShelf* shelf = nullptr;        // null: there is none
  OnlineLearning* learning = nullptr;  // null: nothing is learned from steps
  FeedbackDesk* desk = nullptr;        // where written text waits for feedback; null as learning
};

struct StepOptions {
  std::string default_policy = "nearest";   // of sessions that name none; or "auto"
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
              StepOptions options, LearnedParts learned = {});

  // kInvalidArgument (policy), kNotFound and kMismatch (a fixed policy's memory; the learned policy
  // where none is loaded, or not for this model and layer), kOverloaded, kConflict.
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

  // Called with every choice that a policy makes, for the record; what it is given lives as long as
  // the call.
  using OnChoice = std::function<void(const Session&, const StepContext&, std::uint32_t slot,
                                      const CandidateList&, const Choice&)>;
  void on_choice(OnChoice on_choice) { on_choice_ = std::move(on_choice); }

 private:
  struct Query;
  struct Decision;
  struct Policy;
  Result<Policy> policy_for(const wire::OpenSession& request, TimePoint deadline);
  Decision decide_learned(Session& session, const wire::Observation& observation, std::size_t slot,
                          TimePoint deadline);
  void record(Session& session, const StepContext& context, const CandidateList& list,
              const Choice& choice);
  void settle(Session& session, const wire::Observation& observation, bool end);
  GenericGain& generic_of(const Session& session);
  Result<MemoryVersion> resolve(const Session& session, const MemoryRef& ref, TimePoint deadline);
  Status check(const Session& session, const wire::Observation& observation) const;
  Query query_of(const Session& session, std::size_t slot) const;
  Decision decide(Session& session, const wire::Observation& observation, std::size_t slot,
                  TimePoint deadline);
  void note_outcome(const Session& session, const wire::Observation& observation);
  void add_action(Decision decision, std::size_t slot, Plan& plan, TimePoint deadline);
  Plan repeat(const Session& session, TimePoint deadline);

  MemoryBank& bank_;
  IndexKeeper& keeper_;
  PayloadCache& payloads_;
  SessionTable& sessions_;
  const StepOptions options_;
  const LearnedParts learned_;
  OwnKeys own_keys_;
  std::map<SpaceKey, GenericGain> generic_;
  StepCounters counters_;
  OnChoice on_choice_;
};

// The space of a session's slot.
SpaceKey space_of(const wire::OpenSession& session, const wire::SlotInfo& slot);
// The slot at the lowest layer: its inputs are what observations summarise.
std::size_t lowest_slot(const wire::OpenSession& session);
// kMismatch, naming both: a checkpoint for another model, layer or width than the slot's.
Status check_fits(const Checkpoint& checkpoint, const SpaceKey& space);

}  // namespace memslot
