#include "generator/learn/learn_job.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "generator/learn/recipe.h"
#include "generator/slot/any_memory.h"
#include "generator/slot/slot.h"

namespace memslot {
namespace {

constexpr std::int64_t kMinTokens = 18;    // two beyond those that recall leaves out
constexpr std::int64_t kAnchorRows = 512;  // of one step
constexpr int kRecallEvery = 4;            // steps, where the batches do not show the whole text

template <class Fn>
decltype(auto) with(AnyTrainer& trainer, Fn&& fn) {
  return std::visit(std::forward<Fn>(fn), trainer);
}

}  // namespace

Result<SegmentedText> source_text(const Tokenizer& tokenizer, std::string_view text,
                                  std::int64_t context) {
  MEMSLOT_TRY(SegmentedText out, segment_text(tokenizer, text));
  const std::int64_t tokens = std::ssize(out.tokens);
  if (tokens < kMinTokens)
    return invalid("source tokens", "at least " + std::to_string(kMinTokens), tokens);
  if (tokens > context) {
    return invalid("source tokens", "at most " + std::to_string(context) + " (the context)",
                   tokens);
  }
  return out;
}

LearnJob::LearnJob(const LearnJobParts& parts, const LearnRequest& request, LearnConfig config,
                   SegmentedText text)
    : parts_(parts),
      request_(request),
      config_(config),
      signature_(expected_signature(parts.gpt, request.model_digest, parts.slot, config.kind)),
      text_(std::move(text)),
      space_(parts.gpt.backend()) {}

Status LearnJob::report(const char* phase, int step, float loss, double recall) {
  peak_bytes_ = std::max(peak_bytes_,
                         space_.bytes() + parts_.stack.bytes() + material_.bytes() +
                             (trainer_ ? with(*trainer_, [](auto& t) { return t.bytes(); }) : 0));
  const LearnProgressReport now{step, config_.max_steps, loss, static_cast<float>(recall), phase};
  if (!parts_.progress || parts_.gate.outside([&] { return parts_.progress(now); })) return ok();
  return Error{ErrorCode::kCancelled, "learning: stopped while " + std::string(phase)};
}

Result<LearnOutcome> LearnJob::run() {
  const auto started = std::chrono::steady_clock::now();
  MEMSLOT_TRY(report("reading", 0, 0, 0));
  MEMSLOT_TRY(read());
  MEMSLOT_TRY(report("measuring base", 0, 0, 0));
  MEMSLOT_TRY(measure_base());
  MEMSLOT_TRY(parts_.gate.outside([this] { return make_trainer(); }));
  MEMSLOT_TRY(train());
  MEMSLOT_TRY(report("measuring", steps_, last_loss_, last_recall_));
  MEMSLOT_TRY(LearnOutcome outcome, finish());
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - started;
  outcome.stats.wall_seconds = wall.count();
  return outcome;
}

Status LearnJob::read() {
  windows_ = windows(text_, config_.window_words, config_.stride_words);
  std::vector<std::vector<std::int32_t>> sequences = {text_.tokens};
  if (config_.alone_share > 0) {
    for (const TokenRange& range : windows_) {
      const auto first = text_.tokens.begin() + range.first;
      sequences.emplace_back(first, first + range.count);
    }
  }
  MEMSLOT_TRY(material_,
              Material::read(parts_.gpt, parts_.slot, std::move(sequences), parts_.gate));
  batches_ = std::make_unique<Batches>(material_, windows_, config_);
  return ok();
}

SlotOutput LearnJob::base_output() {
  return [this](ConstMatrix x, Matrix y) {
    parts_.gpt.mlp(parts_.gpt.layer(signature_.layer).mlp, x, y);
  };
}

SlotOutput LearnJob::trained_output() {
  return [this](ConstMatrix x, Matrix y) { with(*trainer_, [&](auto& t) { t.forward(x, y); }); };
}

Status LearnJob::measure_base() {
  MEMSLOT_TRY(const RowLosses losses,
              measure(material_, 1, parts_.stack, parts_.gpt, base_output(), parts_.gate));
  stats_.nll_before = mean_nll(losses, 1);
  stats_.recall_before = recall(text_.tokens, losses.argmax, kRecallSkip);
  return ok();
}

Status LearnJob::make_trainer() {
  const std::int64_t rows = std::max({batches_->max_rows(), text_rows(), kAnchorRows});
  const std::int64_t d = parts_.gpt.config().d_model;
  const TrainerSlot slot{parts_.gpt, parts_.file, signature_.layer, rows};
  if (request_.start != nullptr) {
    MEMSLOT_TRY(check_signature(signature_, request_.start->signature()));
    MEMSLOT_TRY(request_.start->check_finite());
  }
  if (config_.kind == MemoryKind::kMlp) {
    MlpValues start;
    if (request_.start != nullptr) {
      MEMSLOT_TRY(const MlpView view, MlpView::parse(*request_.start));
      start = to_values(view);
    } else {
      MEMSLOT_TRY(start, base_mlp_values(parts_.file, signature_.layer));
    }
    MEMSLOT_TRY(MlpTrainer trainer, MlpTrainer::make(slot, start));
    trainer_ = std::make_unique<AnyTrainer>(std::move(trainer));
  } else {
    LoraValues start =
        fresh_lora(parts_.gpt.config(), config_.rank, double{config_.alpha}, config_.seed);
    if (request_.start != nullptr) {
      MEMSLOT_TRY(const LoraView view, LoraView::parse(*request_.start));
      if (view.rank != config_.rank) {
        return mismatch("rank of the memory to go on with", config_.rank, view.rank);
      }
      if (view.alpha != double{config_.alpha}) {
        return mismatch("alpha of the memory to go on with", config_.alpha, view.alpha);
      }
      start = to_values(view);
    }
    MEMSLOT_TRY(LoraTrainer trainer, LoraTrainer::make(slot, start));
    trainer_ = std::make_unique<AnyTrainer>(std::move(trainer));
  }
  MEMSLOT_TRY(space_.reserve(kInput, parts_.gpt.activation_dtype(), rows, d));
  MEMSLOT_TRY(space_.reserve(kX, DType::kF32, rows, d));
  MEMSLOT_TRY(space_.reserve(kDx, DType::kF32, rows, d));
  MEMSLOT_TRY(space_.reserve(kAnchorOut, DType::kF32, kAnchorRows, d));
  MEMSLOT_TRY(space_.reserve(kAnchorDy, DType::kF32, kAnchorRows, d));
  return parts_.stack.reserve(rows);
}

Status LearnJob::train() {
  for (int step = 1; step <= config_.max_steps; ++step) {
    MEMSLOT_TRY(const bool reached, train_step(step));
    if (reached) return ok();
    steps_ = step;
    MEMSLOT_TRY(report("training", step, last_loss_, last_recall_));
  }
  return ok();
}

Result<bool> LearnJob::train_step(int step) {
  const Batches::Batch batch = batches_->next();
  RowLosses losses;
  if (!batch.whole && step % kRecallEvery == 1) {
    MEMSLOT_TRY(last_recall_, whole_recall());
    if (step > 1 && last_recall_ >= double{config_.target_recall}) return true;
  }
  text_gradient(batch, losses);
  if (batch.whole) {
    last_recall_ = recall(text_.tokens, losses.argmax, kRecallSkip);
    if (step > 1 && last_recall_ >= double{config_.target_recall}) return true;
  }
  last_loss_ = 0;
  for (std::size_t i = 0; i < losses.nll.size(); ++i)
    last_loss_ += batch.rows.weights[i] * losses.nll[i];
  anchor_gradient(step);
  AdamWStep adam;
  adam.lr = learning_rate(config_, step);
  adam.beta1 = kBeta1;
  adam.beta2 = kBeta2;
  adam.weight_decay = config_.weight_decay;
  adam.step = step;
  MEMSLOT_TRY(with(*trainer_, [&](auto& t) -> Status {
    t.finish_gradient();
    ParameterSet& p = t.parameters();
    backend().adamw(p.weight.data(), p.gradient.data(), p.m.data(), p.v.data(), p.size(), adam);
    parts_.gate.breathe();
    return t.pack();
  }));
  parts_.gate.breathe();
  return false;
}

void LearnJob::text_gradient(const Batches::Batch& batch, RowLosses& losses) {
  const std::int64_t rows = batch.rows.rows(), d = material_.d_model;
  const Matrix input = space_.matrix(kInput, material_.dtype, rows, d);
  const Matrix x = space_.matrix(kX, DType::kF32, rows, d);
  const Matrix residual = space_.matrix(kDx, DType::kF32, rows, d);  // its place is free until then
  std::vector<std::int64_t> first_row(material_.tokens.size(), 0);
  for (std::size_t s = 1; s < first_row.size(); ++s) {
    first_row[s] = first_row[s - 1] + std::ssize(material_.tokens[s - 1]);
  }
  std::int64_t row = 0;
  for (const std::size_t s : batch.sequences) {
    const std::int64_t count = std::ssize(material_.tokens[s]);
    backend().copy(material_.input_rows(first_row[s], count), input.slice_rows(row, count));
    backend().copy(material_.residual_rows(first_row[s], count), residual.slice_rows(row, count));
    row += count;
  }
  with(*trainer_, [&](auto& t) { t.forward(input, x); });
  backend().add(residual, 1.0f, x);
  parts_.gate.breathe();
  parts_.stack.gradient(x, batch.rows, losses, residual, parts_.gate);
  with(*trainer_, [&](auto& t) { t.backward(input, residual, /*accumulate=*/false); });
  parts_.gate.breathe();
}

// Adds the gradient of weight * mean_i ||slot(x_i) - base(x_i)||^2 over the next rows of the
// anchor.
void LearnJob::anchor_gradient(int step) {
  if (parts_.anchor == nullptr || config_.anchor <= 0) return;
  const Material& m = parts_.anchor->material;
  const std::int64_t d = m.d_model, rows = std::min(kAnchorRows, m.rows);
  const std::int64_t places = m.rows / rows;
  const std::int64_t first = (step - 1) % places * rows;
  const Matrix out = space_.matrix(kAnchorOut, DType::kF32, rows, d);
  const Matrix dy = space_.matrix(kAnchorDy, DType::kF32, rows, d);
  const ConstMatrix base{parts_.anchor->base_output.data() + first * d, DType::kF32, rows, d, d};
  const ConstMatrix x = m.input_rows(first, rows);
  with(*trainer_, [&](auto& t) { t.forward(x, out); });
  backend().add(base, -1.0f, out);
  std::fill_n(dy.f32(), rows * d, 0.0f);
  backend().add(out, 2 * config_.anchor / static_cast<float>(rows), dy);
  with(*trainer_, [&](auto& t) { t.backward(x, dy, /*accumulate=*/true); });
  parts_.gate.breathe();
}

Result<double> LearnJob::whole_recall() {
  MEMSLOT_TRY(const RowLosses losses,
              measure(material_, 1, parts_.stack, parts_.gpt, trained_output(), parts_.gate));
  return recall(text_.tokens, losses.argmax, kRecallSkip);
}

Result<LearnOutcome> LearnJob::finish() {
  MEMSLOT_TRY(MemoryPayload payload, parts_.gate.outside([this] {
    return with(*trainer_, [this](auto& t) { return t.payload(signature_, config_.dtype); });
  }));
  MEMSLOT_TRY(payload.check_finite());
  LearnStats stats = stats_;
  MEMSLOT_TRY(measure_learned(payload, stats));
  stats.steps = static_cast<std::uint32_t>(steps_);
  stats.tokens = static_cast<std::uint32_t>(text_.tokens.size());
  stats.segments = static_cast<std::uint32_t>(windows_.size());
  stats.config = to_json(config_);
  MEMSLOT_TRY(MemoryKeys keys, make_keys());
  return LearnOutcome{std::move(payload), std::move(keys), std::move(stats)};
}

// From the stored bytes, as a session will run them: rounding to the stored type is in the figures.
Status LearnJob::measure_learned(const MemoryPayload& payload, LearnStats& stats) {
  MEMSLOT_TRY(const AnyMemory memory,
              load_any(payload, nullptr, backend(), parts_.gpt.options().weights));
  SlotScratch scratch(backend());
  const MlpWeights& base = parts_.gpt.layer(signature_.layer).mlp;
  const SlotOutput learned = [&](ConstMatrix x, Matrix y) {
    for (std::int64_t row = 0; row < x.rows; row += kSlotRows) {
      const std::int64_t n = std::min(kSlotRows, x.rows - row);
      const SlotRun run{backend(), base, x.slice_rows(row, n), y.slice_rows(row, n), scratch};
      std::visit(
          [&](const auto& kind) {
            auto state = kind.start(backend());
            kind.forward(run, state);
          },
          memory.kind);
    }
  };
  MEMSLOT_TRY(const RowLosses text,
              measure(material_, 1, parts_.stack, parts_.gpt, learned, parts_.gate));
  stats.nll_after = mean_nll(text, 1);
  stats.recall = recall(text_.tokens, text.argmax, kRecallSkip);
  stats.wise_min_activation = min_activation(learned, base_output());
  if (parts_.control == nullptr) return ok();
  const Material& control = parts_.control->material;
  const std::size_t passages = control.tokens.size();
  MEMSLOT_TRY(const RowLosses other,
              measure(control, passages, parts_.stack, parts_.gpt, learned, parts_.gate));
  const double before = parts_.control->base_nll;
  if (before > 0) stats.locality = (mean_nll(other, passages) - before) / before;
  return ok();
}

double LearnJob::min_activation(const SlotOutput& memory, const SlotOutput& base) {
  const std::int64_t rows = text_rows(), d = material_.d_model;
  std::vector<float> with_memory(static_cast<std::size_t>(rows * d)), with_base(with_memory.size());
  memory(material_.input_rows(0, rows), {with_memory.data(), DType::kF32, rows, d, d});
  base(material_.input_rows(0, rows), {with_base.data(), DType::kF32, rows, d, d});
  double least = INFINITY;
  for (std::int64_t r = 0; r < rows; ++r) {
    double sum = 0;
    for (std::int64_t i = r * d; i < (r + 1) * d; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const double difference = double{with_memory[at]} - double{with_base[at]};
      sum += difference * difference;
    }
    least = std::min(least, std::sqrt(sum));
  }
  return least;
}

// The mean of the slot's inputs over each window's tokens, in their places in the text.
Result<MemoryKeys> LearnJob::make_keys() {
  const std::int64_t rows = text_rows(), d = material_.d_model;
  std::vector<float> inputs(static_cast<std::size_t>(rows * d));
  const LayerWeights& w = parts_.gpt.layer(signature_.layer);
  parts_.gpt.norm(material_.residual_rows(0, rows), w.mlp_norm, w.mlp_norm_bias,
                  {inputs.data(), DType::kF32, rows, d, d});
  MemoryKeys keys;
  keys.dim = static_cast<std::uint32_t>(d);
  for (const TokenRange& range : windows_) {
    std::vector<double> sum(static_cast<std::size_t>(d), 0.0);
    const std::int64_t first =
        std::max<std::int64_t>(1, range.first);  // the text's first token is a sink
    const std::int64_t count = range.first + range.count - first;
    if (count <= 0) continue;
    for (std::int64_t t = first; t < first + count; ++t) {
      for (std::size_t i = 0; i < sum.size(); ++i) {
        sum[i] += double{inputs[static_cast<std::size_t>(t * d) + i]};
      }
    }
    for (const double v : sum)
      keys.values.push_back(static_cast<float>(v / static_cast<double>(count)));
  }
  return keys;
}

}  // namespace memslot
