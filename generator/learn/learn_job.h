#pragma once
// One learn job, step by step; Learner::learn() is its only caller.
//
// Threads: one.
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "generator/learn/batches.h"
#include "generator/learn/learner.h"
#include "generator/learn/material.h"
#include "generator/learn/segments.h"
#include "generator/learn/trainer.h"
#include "generator/learn/upper_stack.h"

namespace memslot {

using LearnProgress = std::function<bool(const LearnProgressReport&)>;

// A text that every job shares, with base's answers for it.
struct SharedText {
  Material material;
  std::vector<float> base_output;  // f32 [rows, D]: the base MLP's (anchor)
  double base_nll = 0;             // (control)
};

// Everything a job works with; all of it outlives the job.
struct LearnJobParts {
  Gpt& gpt;
  const ModelFile& file;
  const Tokenizer& tokenizer;
  UpperStack& stack;
  const SharedText* anchor = nullptr;   // null: none
  const SharedText* control = nullptr;  // null: none
  std::size_t slot = 0;
  GateSlices& gate;
  const LearnProgress& progress;
};

// A source as it is learned. kInvalidArgument: no words, too short, longer than the context.
Result<SegmentedText> source_text(const Tokenizer& tokenizer, std::string_view text,
                                  std::int64_t context);

class LearnJob {
 public:
  // `text`: the request's, as source_text() gave it.
  LearnJob(const LearnJobParts& parts, const LearnRequest& request, LearnConfig config,
           SegmentedText text);

  Result<LearnOutcome> run();
  std::size_t peak_bytes() const { return peak_bytes_; }

 private:
  enum Place : std::size_t { kInput, kX, kDx, kAnchorOut, kAnchorDy };

  Status read();  // segments, material
  Status measure_base();
  Status make_trainer();
  Status train();
  Result<bool> train_step(int step);  // true: the target is reached, nothing was changed
  void text_gradient(const Batches::Batch& batch, RowLosses& losses);
  void anchor_gradient(int step);
  Result<double> whole_recall();  // of the memory as it is, over the whole text
  Result<LearnOutcome> finish();
  Status measure_learned(const MemoryPayload& payload, LearnStats& stats);
  Result<MemoryKeys> make_keys();
  double min_activation(const SlotOutput& memory, const SlotOutput& base);
  Status report(const char* phase, int step, float loss, double recall);

  std::int64_t text_rows() const { return std::ssize(text_.tokens); }
  SlotOutput base_output();
  SlotOutput trained_output();
  Backend& backend() const { return parts_.gpt.backend(); }

  LearnJobParts parts_;
  const LearnRequest& request_;
  LearnConfig config_;
  SlotSignature signature_;
  SegmentedText text_;
  std::vector<TokenRange> windows_;
  Material material_;  // sequence 0: the whole text; then the windows read alone, if any
  std::unique_ptr<Batches> batches_;
  std::unique_ptr<AnyTrainer> trainer_;
  Workspace space_;
  LearnStats stats_;
  int steps_ = 0;
  float last_loss_ = 0;
  double last_recall_ = 0;
  std::size_t peak_bytes_ = 0;
};

}  // namespace memslot
