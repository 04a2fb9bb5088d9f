#pragma once
// `replay`: a trace again, as it was recorded or with other choices at some steps.
//
// As recorded: the same tokens are sampled (or read), with the same memories active in the same
// steps, and each step's tokens and logits are compared with what the trace says. Every bit is the
// same on the same build, instruction set and number of threads; where one differs, the first
// divergence is named together with what differs between then and now.
//
// What if: the same up to the first step of which a slot takes another memory; all that is not
// named keeps the memory that was recorded. What is written from there on is another text; each of
// both texts is then read with the other's memories, so that all four log-probabilities are known.
// The prompt is read once. Of a text that was given there is one text, and its gain difference.
//
// Threads: the task's own thread.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "generator/runtime/task_arguments.h"

namespace memslot {

struct ReplayStep {
  std::vector<MemoryChoice> active;  // by slot; never kAuto
  std::vector<std::int32_t> tokens;
  std::vector<float> log_probs;
  std::uint64_t logits_xxh3 = 0;
};

struct ReplayChange {
  std::uint64_t step = 0;
  std::uint32_t slot = 0;
  MemoryChoice memory;
};

struct ReplayArguments {
  std::string trace;
  bool written = true;  // else: read
  std::vector<std::string> namespaces;
  std::string build = "{}";  // JSON, of the run that was recorded
  std::vector<std::int32_t> prompt;
  wire::KvMode kv = wire::KvMode::kActivated;
  SamplingSettings sampling;
  std::vector<MemoryChoice> opening;  // by slot
  std::vector<ReplayStep> steps;
  std::vector<ReplayChange> changes;  // by step and slot, each once; empty: as it was recorded
};
// kInvalidArgument, naming the argument.
Result<ReplayArguments> replay_arguments(std::string_view json);

}  // namespace memslot
