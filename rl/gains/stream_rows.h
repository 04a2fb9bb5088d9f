#pragma once
// What a generator found out about one stream, put together from the events of its `gains` task
// (docs/formats/tasks.md), and kept as a file until the table is written, so that nothing is scored
// twice.
//
// Errors:  kCorruption (an event or a file that does not fit); of files.
// Threads: one at a time.
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "shared/base/error.h"

namespace memslot::gains_program {

struct StreamRows {
  std::size_t steps = 0, candidates = 0, dim = 0;    // base is candidate 0
  std::vector<float> hidden;                         // (steps, dim)
  std::vector<float> surprise, entropy, activation;  // (candidates, steps)

  // As a safetensors file that is good for `digest` only.
  Status save(const std::string& path, const std::string& digest) const;
  // kNotFound also for one of another digest or that is damaged: it is made again.
  static Result<StreamRows> load(const std::string& path, const std::string& digest);
};

class RowCollector {
 public:
  RowCollector(std::size_t steps, std::size_t candidates) {
    rows_.steps = steps, rows_.candidates = candidates;
  }
  // An event that is not the last. What is wrong is told by finish().
  void take(const nlohmann::json& event);
  std::size_t done() const { return done_; }  // candidates
  Result<StreamRows> finish(const nlohmann::json& last);

 private:
  void restart();
  Status take_hidden(const nlohmann::json& event);
  Status take_rows(const nlohmann::json& event);
  StreamRows rows_;
  std::size_t done_ = 0, hidden_rows_ = 0;
  Status wrong_ = ok();
};

}  // namespace memslot::gains_program
