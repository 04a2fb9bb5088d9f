#pragma once
// Feedback on written text: what sessions wrote and nobody judged yet, and what was judged and not
// learned from yet.
//
//   reward of each step that waits = kFeedbackNats * value - swap cost,  value in [-1, 1]
//
// The steps of closed sessions wait in memory (the newest kMostSessions, at most kMostBytes);
// judged ones are records "feedback/default/<session>-<nonce>" until a published policy has learned
// from them, so that a restart loses none.
//
// Threads: any.
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "rl/episode.h"
#include "storage/document_bank.h"

namespace memslot {

struct WaitingEpisode {
  std::uint64_t session = 0;
  std::vector<std::string> namespaces;  // of the session: who does not see them may not judge it
  std::string space;                    // whitening of the snapshot that acted
  std::uint32_t key_dim = 0;
  Episode episode;
};

class FeedbackDesk {
 public:
  static constexpr std::size_t kMostSessions = 1024;
  static constexpr std::size_t kMostBytes = std::size_t{64} << 20;

  // Both must outlive the desk.
  FeedbackDesk(DocumentBank& documents, const Clock& clock)
      : documents_(documents), clock_(clock) {}

  void put(WaitingEpisode episode);
  // kNotFound: no session of that number waits.
  Result<WaitingEpisode> take(std::uint64_t session);
  Result<std::vector<std::string>> namespaces_of(std::uint64_t session) const;

  // Durable on return; the record's name. REQUIRES: value in [-1, 1].
  Result<std::string> give(WaitingEpisode& episode, float value, TimePoint deadline);
  struct Given {
    std::string name, space;
    Episode episode;
  };
  // All that was given and not used, oldest first. What cannot be read is logged and left out.
  std::vector<Given> given(TimePoint deadline);
  Status used(const std::vector<std::string>& names, TimePoint deadline);

 private:
  DocumentBank& documents_;
  const Clock& clock_;
  mutable std::mutex mutex_;
  std::deque<WaitingEpisode> waiting_;  // newest last; guarded by mutex_
  std::size_t bytes_ = 0;               // guarded by mutex_
};

}  // namespace memslot
