#pragma once
// What a step looked like, for the controller: the slot inputs at the lowest slot (which no memory
// changes) in chunks of wire::kChunkTokens, the mean next-token entropy and the mean NLL of the
// step's tokens.
//
//   mean = (1/n) sum_i x_i      over a chunk's rows, but for position 0 (the first token of a text
//                               is a sink of attention: its input says nothing)
//
// Sums are f64 in the order of the rows, so equal rows give equal bits however they were batched.
// Of a long step only the chunks of the last wire::kWindowTokens are kept.
// Threads: one session's work on the compute thread.
#include <cstdint>
#include <vector>

#include "generator/model/gpt.h"
#include "shared/wire/messages_step.h"

namespace memslot {

struct StepSummary {
  std::vector<wire::ChunkSummary> chunks;  // oldest first
  float entropy = 0;                       // nats; 0 where no token was scored
  float surprise = 0;                      // nats
};

class Observer {
 public:
  explicit Observer(Backend& backend) : backend_(&backend) {}

  // Forgets everything; rows before `first_position` will not count. A chunk ends before every
  // position that is `boundary` plus or minus a multiple of wire::kChunkTokens.
  void start(std::int64_t first_position, std::int64_t boundary);
  void add_rows(const SlotCall& call);
  void add_token(double entropy, double nll);
  StepSummary summary() const;

 private:
  wire::ChunkSummary open_chunk() const;
  void close_chunk();

  Backend* backend_;
  std::int64_t first_position_ = 0;
  std::int64_t boundary_ = 0;
  std::vector<wire::ChunkSummary> chunks_;
  std::vector<double> sum_;      // of the chunk that is not full yet
  std::vector<std::byte> host_;  // one row
  std::uint32_t rows_ = 0;
  double entropy_ = 0, nll_ = 0;
  std::uint32_t tokens_ = 0;
};

}  // namespace memslot
