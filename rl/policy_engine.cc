#include "rl/policy_engine.h"

#include "shared/base/digest.h"

namespace memslot {
namespace {

constexpr std::uint32_t kMostWindowTokens = 128;  // what a generator can tell again
constexpr std::uint32_t kMostCandidates = 32;

Status check_task(const Checkpoint& checkpoint) {
  if (checkpoint.whitening.reduced_dim() == 0) {
    return mismatch("policy checkpoint's whitening", "the one that it was trained in", "none");
  }
  const PolicyTask& task = checkpoint.task;
  for (const std::uint32_t tokens : {task.window_tokens, task.long_window_tokens}) {
    if (tokens >= 1 && tokens <= kMostWindowTokens) continue;
    return mismatch("policy checkpoint's windows", "1 to 128 tokens", tokens);
  }
  if (task.candidates < 2 || task.candidates > kMostCandidates) {
    return mismatch("policy checkpoint's candidates", "2 to 32", task.candidates);
  }
  return ok();
}

}  // namespace

Result<std::shared_ptr<const PolicySnapshot>> make_snapshot(const std::string& bytes,
                                                            const PolicyEngine& engine) {
  auto out = std::make_shared<PolicySnapshot>();
  MEMSLOT_TRY(out->checkpoint, Checkpoint::parse(bytes));
  MEMSLOT_TRY(check_task(out->checkpoint));
  if (!engine.make_policy) {
    return Error{ErrorCode::kNotSupported, "policy: this program runs no learned ones"};
  }
  MEMSLOT_TRY(out->policy, engine.make_policy(out->checkpoint));
  out->digest = sha256(bytes_of(bytes)).hex();
  out->space = out->checkpoint.whitening.digest();
  std::erase_if(out->checkpoint.tensors,
                [](const auto& tensor) { return !tensor.first.starts_with("scorer."); });
  return std::shared_ptr<const PolicySnapshot>(std::move(out));
}

}  // namespace memslot
