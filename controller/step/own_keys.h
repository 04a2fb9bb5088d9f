#pragma once
// Similarities in a session's own whitening, where the index has another: a session keeps what its
// policy was trained in while the index follows a newer one. The keys of the few candidates are
// read from the bank, whitened, and remembered.
//
//   best_key, mean_key, key as the index has them (candidate_index.h), of the version's own keys
//
// Errors:  keys that cannot be read are logged; the candidate is then like one without keys.
// Limits:  kMostValues numbers are remembered; then it begins anew.
// Threads: one at a time.
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "controller/step/candidates.h"
#include "storage/memory_bank.h"

namespace memslot {

class OwnKeys {
 public:
  static constexpr std::size_t kMostValues = std::size_t{8} << 20;

  explicit OwnKeys(MemoryBank& bank) : bank_(bank) {}

  struct Queries {
    const Whitened &now, &longer;  // of that whitening; empty: none
  };
  // Replaces what `list` says of each memory's keys.
  // The keys that the list then shows live until the next call.
  void score(const Whitening& whitening, const std::string& digest, Queries queries,
             CandidateList& list, TimePoint deadline);

 private:
  struct Own {
    std::vector<std::uint16_t> rows;  // (n, W) bf16
    std::vector<float> mean;          // (R) of length 1; both empty without keys
  };
  using Key = std::tuple<std::string, std::string, std::string>;  // whitening, memory, token
  const Own& get(const Whitening& whitening, const std::string& digest,
                 const MemoryVersion& version, TimePoint deadline);

  MemoryBank& bank_;
  std::map<Key, Own> known_;
  std::size_t values_ = 0;
};

}  // namespace memslot
