#include "generator/learn/batches.h"

#include <algorithm>
#include <numeric>

#include "shared/base/rng.h"

namespace memslot {

Batches::Batches(const Material& material, std::vector<TokenRange> ranges,
                 const LearnConfig& config)
    : material_(material),
      windows_(std::move(ranges)),
      seed_(config.seed),
      text_rows_(std::ssize(material.tokens.at(0))),
      whole_(config.alone_share < 1) {
  MEMSLOT_CHECK(material.tokens.size() == 1 || material.tokens.size() == 1 + windows_.size());
  const auto rows = static_cast<double>(text_rows_);
  const double share = double{config.alone_share};
  // Of all tokens of a step; without the whole text, as many as it has.
  const double budget = whole_ ? rows * share / (1 - share) : rows;
  window_budget_ = std::min<std::int64_t>(static_cast<std::int64_t>(budget), 4 * text_rows_);
  std::int64_t longest = 0;
  for (const TokenRange& range : windows_) longest = std::max(longest, range.count);
  max_rows_ = (whole_ ? text_rows_ : 0) + (window_budget_ > 0 ? window_budget_ + longest : 0);
}

// The next window of a rotation that is shuffled anew every time round (Fisher and Yates).
std::size_t Batches::draw() {
  if (used_ == order_.size()) {
    order_.resize(windows_.size());
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    ++epoch_;
    for (std::size_t i = order_.size(); i > 1; --i) {
      std::swap(order_[i - 1], order_[uniform_below(i, seed_, epoch_, i)]);
    }
    used_ = 0;
  }
  return order_[used_++];
}

void Batches::add(std::size_t sequence, Batch& batch) const {
  const auto& tokens = material_.tokens[sequence];
  const bool begins = sequence == 0 || windows_[sequence - 1].first == 0;
  batch.sequences.push_back(sequence);
  batch.rows.lengths.push_back(std::ssize(tokens));
  for (std::size_t t = 1; t < tokens.size(); ++t) {
    const bool counted = begins || static_cast<std::int64_t>(t) >= kLead;
    batch.rows.targets.push_back(counted ? tokens[t] : -1);
  }
  batch.rows.targets.push_back(-1);
}

Batches::Batch Batches::next() {
  Batch batch;
  if (whole_) {
    add(0, batch);
    batch.whole = true;
  }
  const std::int64_t limit = batch.rows.rows() + window_budget_;
  while (window_budget_ > 0 && batch.rows.rows() < limit) add(1 + draw(), batch);
  const auto counted =
      std::ranges::count_if(batch.rows.targets, [](std::int32_t t) { return t >= 0; });
  batch.rows.weights.assign(batch.rows.targets.size(),
                            1.0f / static_cast<float>(std::max<std::int64_t>(1, counted)));
  return batch;
}

}  // namespace memslot
