#pragma once
// "Update memory": trains one slot's memory on one source by next-word prediction; the rest of the
// model is frozen.
//
//   slot inputs of the text are computed once and cached (the layers below never change);
//   each step: forward from the slot up, loss over the segments' tokens, backward down to the slot,
//   AdamW on the memory's parameters (f32 masters) with warm-up and decay; stop at the target
//   recall or the step limit; optionally an anchor: mean ||slot(x) - base(x)||^2 on other text.
//
// Segments: `overlap` = windows of w words every s words, each read alone; `cumulative` = segments
// appended, each read with everything before it, the loss counting the newest only. The latter is
// one causal pass over the whole text (batches.h says why), to which a share of windows read alone
// is added
// (`alone_share`), because a prompt comes without the text before it.
//
// Threads: learn() runs on the learner's thread and takes the compute gate slice by slice, so that
// decoding goes first (compute_gate.h). `progress` is called without the gate. The other calls only
// between jobs.
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "generator/learn/compute_gate.h"
#include "generator/model/gpt.h"
#include "generator/model/tokenizer.h"
#include "shared/memory/learn_config.h"
#include "shared/memory/payload.h"
#include "shared/memory/record.h"

namespace memslot {

struct LearnRequest {
  std::string text;
  LearnConfig config;  // of kind kMlp or kLora
  Sha256 model_digest;
  // Continue from this memory, which must be of the kind, layer, rank and alpha asked for
  // (kMismatch); null: from base (mlp), from zero (lora).
  const MemoryPayload* start = nullptr;
};

struct LearnProgressReport {
  int step = 0, max_steps = 0;
  float loss = 0;  // nats per token
  float recall = 0;
  const char* phase = "";
};

struct LearnOutcome {
  MemoryPayload payload;
  MemoryKeys keys;
  LearnStats stats;
};

inline constexpr std::int64_t kControlTokens = 4096;  // the most of the control texts that are read

// Texts that every job of a generator shares, tokenized once. Either may be empty.
struct LearnTexts {
  std::vector<std::string> anchor;   // clean prose for the anchor
  std::vector<std::string> control;  // for locality; never trained on
};

class Learner {
 public:
  // `file` gives the weights again for the transposed copies that backward needs.
  Learner(Gpt& gpt, const ModelFile& file, const Tokenizer& tokenizer, LearnTexts texts,
          ComputeGate& gate);
  ~Learner();

  // `progress` returns false to cancel (kCancelled). kInvalidArgument: empty text, too short (fewer
  // than 18 tokens), or longer than the context (says the limit in tokens and what was found).
  // kNotSupported: another kind.
  Result<LearnOutcome> learn(const LearnRequest& request,
                             const std::function<bool(const LearnProgressReport&)>& progress);

  const LearnTexts& texts() const;
  ComputeGate& gate() const;

  std::size_t workspace_bytes() const;  // held between jobs and at the peak of the last one
  void release_workspace();  // frees it, and what the backend kept; the next job makes it again

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace memslot
