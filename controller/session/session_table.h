#pragma once
// The open sessions of all generators, and what a step needs to know of each.
//
// A session belongs to the generator that opened it: to another peer it does not exist. It ends
// when it is closed or when its generator is lost; a generator that only lost the link opens it
// again under the same number (opening is idempotent). After a controller restart the table is
// empty, and the first request of a session is answered kNotFound.
//
// Threads: one at a time.
#include <cstdint>
#include <deque>
#include <functional>  // hash
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_set>
#include <vector>

#include "controller/policy/episode_recorder.h"
#include "controller/policy/policy_shelf.h"
#include "controller/session/key_window.h"
#include "shared/transport/channel.h"
#include "shared/wire/messages_step.h"

namespace memslot {

struct ResidentHash {
  std::size_t operator()(const wire::Resident& resident) const {
    return std::hash<std::string>()(resident.ref.id) ^ (resident.ref.version + resident.slot);
  }
};

// The generator's resident memories, as far as its observations told.
struct ResidentView {
  std::uint64_t epoch = 0;
  bool known = false;
  std::unordered_set<wire::Resident, ResidentHash> set;

  // False, and nothing known, if the delta does not start where the view is.
  bool apply(const wire::ResidentDelta& delta);
};

struct Session {
  wire::OpenSession open;  // namespaces: those that the generator may see as well
  PeerId peer;
  std::shared_ptr<const SelectionPolicy> policy;
  std::string spec;                         // the policy in full
  SnapshotPtr learned;                      // what the policy came from; null: a rule
  std::optional<EpisodeRecorder> recorder;  // where the session is learned from
  std::optional<MemoryVersion> wanted;      // the memory of a fixed policy
  ResidentView residents;
  KeyWindow window;                     // summaries of the last tokens
  std::optional<wire::Directive> last;  // the directive of the newest step

  bool sees(std::string_view ns) const;
};

class SessionTable {
 public:
  explicit SessionTable(std::size_t limit = 4096) : limit_(limit) {}

  // kOverloaded at the limit; kConflict if another generator holds that number. An open session of
  // the same generator and incarnation is found, not made anew: `made` says which.
  struct Opened {
    Session* session = nullptr;
    bool made = false;
  };
  Result<Opened> open(const PeerId& peer, const wire::OpenSession& request);
  // kNotFound: unknown, or another peer's.
  Result<Session*> find(const PeerId& peer, std::uint64_t session);
  // Of whatever generator; null if it is not open.
  Session* any(std::uint64_t session);
  void close(std::uint64_t session);
  // True for one of the last thousand closed sessions: a retried close is success.
  bool was_closed(std::uint64_t session) const { return closed_.contains(session); }

  std::size_t drop_peer(const PeerId& peer);  // how many
  void rehome(const PeerId& from, const PeerId& to);
  bool holds(std::uint64_t session) const { return sessions_.contains(session); }
  std::size_t size() const { return sessions_.size(); }
  std::size_t count(const PeerId& peer) const;

 private:
  std::size_t limit_;
  std::map<std::uint64_t, Session> sessions_;
  std::set<std::uint64_t> closed_;
  std::deque<std::uint64_t> closed_order_;
};

}  // namespace memslot
