#pragma once
// What a trace holds: the record of one generation or reading (docs/formats/trace.md). The
// generator tells what it did (Start, Step, WriteBack, Fault, End), the controller what it decided
// and why (Decision, Feedback).
//
// Threads: values.
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "shared/memory/record.h"
#include "shared/wire/messages_step.h"

namespace memslot::trace {

enum class Origin : std::uint8_t { kWritten = 1, kRead = 2 };  // tokens were sampled, or given

struct NamedMemory {
  MemoryRef ref;  // id empty: base
  Sha256 sha256;  // of the payload; zero: not known, or base
  bool is_base() const { return ref.id.empty(); }
  friend bool operator==(const NamedMemory&, const NamedMemory&) = default;
};

struct Start {
  std::uint64_t session = 0;
  std::int64_t created_unix_ms = 0;
  Origin origin = Origin::kWritten;
  std::vector<std::string> namespaces;  // of the session: who does not see them all sees no trace
  std::string build = "{}";             // JSON: build, backend, isa, threads, weights, model, ...
  std::string request = "{}";           // JSON: the task's arguments but for the prompt
  std::string policy;                   // in full; "": none was asked
  std::vector<std::int32_t> prompt;
  std::string prompt_text;
  std::vector<NamedMemory> opening;  // by slot: active while the prompt was read
  friend bool operator==(const Start&, const Start&) = default;
};

struct Active {
  std::uint32_t slot = 0;
  NamedMemory memory;
  wire::ActiveReason reason = wire::ActiveReason::kOpening;
  friend bool operator==(const Active&, const Active&) = default;
};

struct Step {
  std::uint64_t step = 0;
  std::vector<Active> active;  // one per slot, as it was during the step
  std::vector<std::int32_t> tokens;
  std::vector<float> log_probs;  // nats, one per token, under the full distribution
  std::string text;
  std::uint64_t logits_xxh3 = 0;  // session.h: over the logits that the step's tokens came from
  float entropy = 0;              // nats
  float surprise = 0;             // nats
  std::optional<float> gain;      // nats per token over base; never for sampled text
  std::uint32_t candidates = 0;   // 0: no directive came
  std::optional<std::uint64_t> advised_step;  // whose directive was applied; async: the one before
  float select_us = 0, swap_us = 0, recompute_us = 0, compute_us = 0;
  std::uint32_t recomputed = 0;  // positions
  friend bool operator==(const Step&, const Step&) = default;
};

// What the policy saw of one memory, exactly, and its score.
struct Candidate {
  MemoryRef ref;  // the first is base
  bool current = false, resident = false;
  float best_key = 0, mean_key = 0, long_key = 0;
  float past_net_gain = 0;
  std::uint32_t uses = 0;
  std::uint64_t age = 0;
  float swap_cost = 0;
  float score = 0;
  friend bool operator==(const Candidate&, const Candidate&) = default;
};

struct Decision {
  std::uint64_t step = 0;
  std::uint32_t slot = 0;
  std::string policy;  // a rule's spec, or the digest of a learned one
  std::uint64_t seed = 0;
  bool explore = false;
  float entropy = 0, surprise = 0;  // nats, of the step before
  std::uint32_t steps_since_swap = 0;
  std::uint32_t chosen = 0;  // index into the candidates
  float log_prob = 0;
  bool features = true;      // false: only the chosen candidate is here, and no query
  std::vector<float> query;  // (R) whitened; empty: none yet
  std::vector<Candidate> candidates;
  friend bool operator==(const Decision&, const Decision&) = default;
};

struct WriteBack {
  std::uint64_t step = 0;
  std::string from, stored;  // NS/ID@VERSION; stored "": it was not
  bool conflict = false;     // kept as a branch
  std::string error;
  friend bool operator==(const WriteBack&, const WriteBack&) = default;
};

struct Fault {
  std::uint64_t step = 0;
  std::string text;
  friend bool operator==(const Fault&, const Fault&) = default;
};

struct Feedback {
  float value = 0;
  friend bool operator==(const Feedback&, const Feedback&) = default;
};

struct End {
  std::string finish;  // as in the task's last event; "": it failed
  std::string error;
  std::uint64_t missed = 0, load_failures = 0;
  double prefill_seconds = 0, decode_seconds = 0;
  friend bool operator==(const End&, const End&) = default;
};

using Event = std::variant<Start, Step, Decision, WriteBack, Fault, Feedback, End>;

// The name of a session's trace: 16 hex digits. kInvalidArgument.
std::string trace_id(std::uint64_t session);
Result<std::uint64_t> parse_trace_id(std::string_view id);

}  // namespace memslot::trace
