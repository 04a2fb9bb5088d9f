#pragma once
// The numerical half of one generation or reading: tokens, KV cache, slots, figures. It knows no
// controller and no clock but for timings; the step loop (step_loop.h) drives it.
//
// Between calls the cache holds all tokens but the last one: a step first feeds that last token, so
// every token of a step is predicted by the memories that are active in it, the first one included.
//
//   activated   a swap counts from the next token on.
//   recompute   a swap recomputes the layers above the lowest changed slot over all cached tokens:
//               from there on everything is bit-identical to a run that had these memories all
//               along (row-invariant backends). A stateful memory therefore reads the text from its
//               stored state again. In `activated`, a stateful memory that comes back goes on from
//               the state at which it was swapped out.
//
// Owner:   owns cache and slots; borrows Gpt and LogitsScratch, which outlive it.
// Threads: make() and the accessors of a session at rest from any thread; the rest on the compute
//          thread, one call at a time.
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "generator/model/gpt.h"
#include "generator/runtime/observer.h"
#include "generator/runtime/sampler.h"
#include "generator/slot/slot.h"
#include "shared/wire/messages_step.h"

namespace memslot {

// Room for the logits of a few rows, shared by all sessions (they compute one at a time).
class LogitsScratch {
 public:
  static constexpr std::int64_t kRows = 32;
  static Result<LogitsScratch> make(const Gpt& gpt);
  Matrix device(std::int64_t rows) const;  // (rows, V) f32
  Matrix hidden() const;                   // (Gpt::kMaxRows, D) f32
  std::vector<float>& host() { return host_; }
  std::size_t bytes() const;
  // Of all sessions' caches, kept by the sessions; any thread.
  std::atomic<std::size_t>& kv_bytes() { return *kv_bytes_; }

 private:
  std::int64_t vocab_ = 0, d_model_ = 0;
  Buffer logits_, hidden_;
  std::vector<float> host_;
  std::unique_ptr<std::atomic<std::size_t>> kv_bytes_ =
      std::make_unique<std::atomic<std::size_t>>(0);
};

inline const char* kv_mode_name(wire::KvMode kv) {
  return kv == wire::KvMode::kRecompute ? "recompute" : "activated";
}

struct SessionSettings {
  wire::KvMode kv = wire::KvMode::kActivated;
  SamplingSettings sampling;
  bool digest_logits = false;  // keep logits_xxh3()
  bool figures = true;         // entropy and surprise of a prompt's last tokens (costs logits)
  int top_logits = 0;          // keep this many per token when reading
};

struct TokenFigures {
  std::int32_t token = 0;
  float log_prob = 0;  // nats, under the full distribution
  bool is_argmax = false;
  // Best first: (id, logit) of a token that was read, (id, log-probability) of one that was
  // written.
  std::vector<std::pair<std::int32_t, float>> top;
};

enum class StepEnd { kMore, kEnded };  // kEnded: the callback stopped it, or no token is left

struct StepOutput {
  std::vector<TokenFigures> tokens;
  StepSummary summary;
  StepEnd end = StepEnd::kMore;
  // Of the logits that the tokens came from, where digest_logits: h_i = xxh3_64(h_{i-1} ||
  // xxh128(logits_i)), 8 and 16 bytes, from 0.
  std::uint64_t logits_xxh3 = 0;
};

struct SlotChange {
  std::size_t slot = 0;
  std::shared_ptr<const LoadedMemory> memory;  // null: base
};

struct SwapOutcome {
  bool changed = false;
  double swap_us = 0;  // activation alone
  double recompute_us = 0;
  std::int64_t recomputed = 0;  // positions
};

class Session {
 public:
  static Result<std::unique_ptr<Session>> make(Gpt& gpt, LogitsScratch& scratch,
                                               SessionSettings settings);
  ~Session();

  const std::vector<std::int32_t>& tokens() const { return tokens_; }
  std::int64_t cached() const { return kv_.length(); }
  const KvCache& kv() const { return kv_; }
  const SessionSlot& slot(std::size_t i) const { return slots_[i]; }
  std::size_t slots() const { return slots_.size(); }
  std::int64_t room() const;  // tokens that still fit the context

  // Goes on from where `other` stands: tokens, cache, memories with their states, draws and digest
  // become equal to the other's, in memory of its own, and what it held before is gone. Under equal
  // settings it then computes bit for bit what the other would have; neither disturbs the other.
  // kMismatch: another kv mode; then nothing is changed. Another error leaves the session unusable.
  // REQUIRES: the same model.
  Status continue_from(const Session& other);

  // Tokens that are given (a prompt, a text). kInvalidArgument: an id outside the vocabulary, or
  // more than the context holds; then nothing is added.
  Status add_tokens(std::span<const std::int32_t> ids);

  // Reads up to `limit` tokens of those given, never the last one; true when all are read. The
  // summary then has chunks of the last wire::kWindowTokens, counted from the end, and figures of
  // the last kPromptWindow.
  static constexpr std::int64_t kPromptWindow = 32;
  Result<bool> prefill(std::int64_t limit);
  StepSummary prompt_summary() const { return prompt_; }

  // Takes all changes at once. An error leaves the session unusable (the cache is half recomputed).
  Result<SwapOutcome> activate(std::span<const SlotChange> changes);

  // Samples up to `count` tokens; `on_token` returns false to stop after this one.
  using OnToken = std::function<bool(std::int32_t)>;
  Result<StepOutput> write(int count, const OnToken& on_token);
  // Reads the next `count` of the given tokens, scoring each.
  Result<StepOutput> read(int count);

  // XXH3-128, chained: d_i = xxh128(d_{i-1} || xxh128(logits_i)), 16 bytes each, low half first.
  Xxh128 logits_xxh3() const { return logits_digest_; }

  Result<MemoryPayload> snapshot(std::size_t slot) const { return slots_[slot].snapshot(); }

 private:
  Session(Gpt& gpt, LogitsScratch& scratch, SessionSettings settings, KvCache kv);
  Status forward(std::span<const std::int32_t> ids, Matrix hidden, bool last_only);
  Result<std::span<const float>> next_logits();
  void count_kv();
  void digest(std::span<const float> logits);
  void set_aside(std::size_t slot);
  void bring_back(std::size_t slot);
  Status score_rows(std::int64_t first_target, std::int64_t rows, StepOutput* out);
  std::vector<std::string> memory_names() const;

  Gpt& gpt_;
  LogitsScratch& scratch_;
  SessionSettings settings_;
  KvCache kv_;
  std::size_t counted_kv_bytes_ = 0;
  std::vector<SessionSlot> slots_;
  SlotForward slot_forward_;
  Observer observer_;
  bool observing_ = false;
  StepSummary prompt_;
  std::vector<std::int32_t> tokens_;
  Xxh128 logits_digest_{};
  std::uint64_t step_digest_ = 0;
  std::uint64_t sampled_ = 0;
  // States of stateful memories that were swapped out, oldest first; over the bound the oldest
  // goes.
  struct SetAside {
    std::size_t slot = 0;
    MemoryRef ref;  // two memories may hold the same bytes
    Sha256 memory;  // digest of its payload
    std::shared_ptr<const MemoryPayload> state;
  };
  static constexpr std::size_t kMaxSetAside = 8;
  std::vector<SetAside> set_aside_;
};

}  // namespace memslot
