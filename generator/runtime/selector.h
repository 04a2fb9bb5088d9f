#pragma once
// One session's talk with the controller: open, observe and be advised, fetch a memory, close.
//
//   - The resident set goes along as a delta to what the controller is known to have; after what
//     is unsure, or when the controller asks, whole.
//   - The text goes along as the chunks since the last observation; after an opening or anything
//     unsure as the whole window (the chunks of the last wire::kWindowTokens), which replaces what
//     the controller had. So a controller that restarted chooses as the one before it would have.
//   - What was reported stays pinned until release_pins(): once the directive is in, before the
//     memories that it brings are loaded (they may need the room), or once it was missed.
//   - A controller that restarted knows no session: it is opened again and the request repeated.
//   - observe() does not wait for a controller that is known to be lost.
//   - A directive for another step is dropped and counted.
//
// Threads: one session's thread.
#include <cstdint>
#include <deque>
#include <set>
#include <string>
#include <vector>

#include "generator/link/controller_link.h"
#include "generator/slot/resident_set.h"

namespace memslot {

struct Advice {
  wire::Directive directive;
  std::vector<SharedBytes> parts;
  double select_us = 0;  // observation sent to directive received
};

struct FetchedMemory {
  MemoryVersion version;
  SharedBytes payload;
};

class Selector {
 public:
  Selector(ControllerLink& link, ResidentSet& residents, const Clock& clock,
           wire::OpenSession open);
  ~Selector();  // releases the pins; says CloseSession if nobody did
  Selector(const Selector&) = delete;
  Selector& operator=(const Selector&) = delete;

  std::uint64_t session() const { return open_.session; }
  const wire::OpenSession& opening() const { return open_; }
  // The policy that the controller opened the session with.
  const std::string& policy() const { return policy_; }

  Status open(TimePoint deadline);
  // `observation` without session and residents, which are filled in here. kTimeout and
  // kUnavailable: no advice came; the step goes on with what it has.
  Result<Advice> observe(wire::Observation observation, TimePoint deadline);
  void release_pins();
  Result<FetchedMemory> fetch(const MemoryRef& ref, TimePoint deadline);
  Status close(wire::Observation last, TimePoint deadline);

  std::uint64_t late() const { return late_; }

 private:
  Result<wire::Message> reopened(const wire::Body& body, Result<wire::Message> reply,
                                 TimePoint deadline);
  wire::ResidentDelta report();
  void remember(const std::vector<wire::ChunkSummary>& chunks);
  void tell_whole_window(wire::Observation& observation) const;

  ControllerLink& link_;
  ResidentSet& residents_;
  const Clock& clock_;
  const wire::OpenSession open_;
  std::string policy_;
  bool opened_ = false;
  std::uint64_t sent_epoch_ = 0;   // of the last report
  std::uint64_t known_epoch_ = 0;  // what the controller has of the resident set; 0: nothing sure
  std::deque<wire::ChunkSummary> window_;  // oldest first; no more than kWindowTokens need
  std::uint64_t window_tokens_ = 0;
  bool window_known_ = false;  // the controller has the chunks of all earlier observations
  std::set<ResidentKey> reported_;
  std::vector<ResidentKey> pinned_;
  std::uint64_t late_ = 0;
};

}  // namespace memslot
