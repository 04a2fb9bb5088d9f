#pragma once
// The arguments of the tasks that a generator answers (docs/formats/tasks.md), parsed once.
//
// Errors: kInvalidArgument naming the argument, what is accepted and what was found; an unknown
// name
//         is an error too. JSON that does not parse likewise.
// Threads: pure functions.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "generator/runtime/sampler.h"
#include "shared/base/clock.h"
#include "shared/memory/record.h"
#include "shared/wire/messages_step.h"

namespace memslot {

// Who decides what is active in the slot.
struct MemoryChoice {
  enum class Kind { kAuto, kBase, kNamed };
  Kind kind = Kind::kBase;
  MemoryRef ref;  // for kNamed; version 0: the head
};

class ArgumentReader;
// `temperature`, `top_k`, `top_p` and `seed` (1).
void read_sampling(ArgumentReader& in, SamplingSettings* out);

struct ForcedSwap {
  std::uint64_t step = 0;
  MemoryChoice memory;  // never kAuto
};
using ForcedSwaps = std::vector<ForcedSwap>;  // by step, ascending

// What generate and score share.
struct SessionArguments {
  std::vector<std::string> namespaces{"default"};
  MemoryChoice memory;
  std::uint32_t slot = 0;
  std::string policy;
  wire::KvMode kv = wire::KvMode::kActivated;
  int step_tokens = 16;
};

// A text or its ids; exactly one is given.
struct TextArguments {
  std::optional<std::string> text;
  std::optional<std::vector<std::int32_t>> ids;
};

struct GenerateArguments {
  SessionArguments session;
  TextArguments prompt;
  wire::SelectMode select = wire::SelectMode::kSync;
  int max_tokens = 128;
  SamplingSettings sampling;
  std::vector<std::string> stop;
  int top_log_probs = 0;  // alternatives told of each token
  bool explore = false;
  Duration deadline = std::chrono::seconds(1);
  bool write_back = false;
  int write_back_every = 0;  // steps; 0: at the end only
  ForcedSwaps schedule;      // with it "auto" starts from base
  bool trace = true;         // recorded by the controller
};
Result<GenerateArguments> generate_arguments(std::string_view json);

struct ScoreArguments {
  SessionArguments session;
  TextArguments text;
  int top_logits = 0;
  Duration deadline = std::chrono::seconds(1);
  ForcedSwaps schedule;  // as generate's
  bool trace = true;
};
Result<ScoreArguments> score_arguments(std::string_view json);

struct GainsArguments {
  std::vector<std::string> namespaces{"default"};
  std::vector<MemoryRef> memories;
  TextArguments text;
  std::vector<std::int32_t> steps;  // tokens of each; empty: cut by step_tokens
  int step_tokens = 16;
  std::uint32_t slot = 0;
};
Result<GainsArguments> gains_arguments(std::string_view json);

Result<TextArguments> tokenize_arguments(std::string_view json);

// For tasks that take none.
Status no_arguments(std::string_view json);

struct BenchArguments {
  enum class What { kDecode, kPrefill, kSwap, kRecompute, kLearnStep, kRoundTrip };
  What what = What::kDecode;
  int tokens = 0;  // 0: the measurement's own default
  int repeats = 0;
  MemoryChoice memory;
  std::uint32_t slot = 0;
  std::vector<std::string> namespaces{"default"};
  std::string policy;
};
Result<BenchArguments> bench_arguments(std::string_view json);

}  // namespace memslot
