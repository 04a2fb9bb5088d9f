#pragma once
// What is written down of a training: one JSON object a line (docs/formats/training.md), and a page
// with its curves.
//
// Errors:  load(): kIo; a line that is no JSON object (the end of a file that was cut off) is left
//          out.
// Threads: plain data.
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "rl/train.h"

namespace memslot {

class TrainingLog {
 public:
  // `start` describes the training; `references` are mean gains on validation to hold curves
  // against.
  static TrainingLog begin(nlohmann::json start);
  // Of a training that goes on at `update`: without what came after it. An absent file is empty.
  static Result<TrainingLog> load(const std::string& path, std::uint64_t update);

  // `seconds` of training so far.
  void look(const TrainPoint& point, double seconds);
  void end(const nlohmann::json& end);

  bool empty() const { return lines_.empty(); }
  double seconds() const;    // up to the last look
  std::string text() const;  // of the file
  std::string page() const;  // HTML

 private:
  std::vector<nlohmann::json> lines_;
};

// The last line of a curve whose training came to its end; null where there is none.
nlohmann::json end_of_training(const std::string& curve);

// mean_gain, regret, accuracy, abstention, swaps_per_100, ci95 and the rest of a score.
nlohmann::json json_of(const Score& score);

}  // namespace memslot
