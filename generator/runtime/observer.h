#pragma once
// What a step looked like, for the controller: the mean slot input at the lowest slot (which no
// memory changes), the mean next-token entropy and the mean NLL of the step's tokens.
//
//   hidden_mean = (1/n) sum_i x_i      over the step's rows, but for position 0 (the first token of
//                                      a text is a sink of attention: its input says nothing)
//
// Sums are f64 in the order of the rows, so equal rows give equal bits however they were batched.
// Threads: one session's work on the compute thread.
#include <cstdint>
#include <vector>

#include "generator/model/gpt.h"

namespace memslot {

struct StepSummary {
  std::vector<float> hidden_mean;  // (D), empty when count is 0
  std::uint32_t hidden_count = 0;
  float entropy = 0;   // nats; 0 where no token was scored
  float surprise = 0;  // nats
};

class Observer {
 public:
  explicit Observer(Backend& backend) : backend_(&backend) {}

  // Forgets everything; rows before `first_position` will not count.
  void start(std::int64_t first_position);
  void add_rows(const SlotCall& call);
  void add_token(double entropy, double nll);
  StepSummary summary() const;

 private:
  Backend* backend_;
  std::int64_t first_position_ = 0;
  std::vector<double> sum_;
  std::vector<std::byte> host_;  // one row
  std::uint32_t rows_ = 0;
  double entropy_ = 0, nll_ = 0;
  std::uint32_t tokens_ = 0;
};

}  // namespace memslot
