#pragma once
// Always the same memory; base where it is not among the candidates (unknown, erased, of another
// namespace or another model). Threads: immutable.
#include "rl/selection_policy.h"

namespace memslot {

class FixedPolicy final : public SelectionPolicy {
 public:
  // ref.version 0: whichever version is offered.
  explicit FixedPolicy(MemoryRef ref) : ref_(std::move(ref)) {}
  std::string_view name() const override { return "fixed"; }
  std::string_view digest() const override { return ""; }
  const MemoryRef* wanted() const override { return &ref_; }
  Choice choose(const StepContext& step, std::span<const Candidate> candidates) const override;

 private:
  MemoryRef ref_;
};

}  // namespace memslot
