#include "generator/learn/learner.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "generator/learn/learn_job.h"
#include "generator/learn/recipe.h"

namespace memslot {
namespace {

// The most tokens read of the anchor, and of one of its sequences.
constexpr std::int64_t kAnchorTokens = 6144;
constexpr std::int64_t kSharedSequence = 256;

Result<std::vector<std::vector<std::int32_t>>> shared_sequences(const Tokenizer& tokenizer,
                                                                std::span<const std::string> texts,
                                                                std::int64_t limit,
                                                                std::int64_t longest) {
  std::vector<std::vector<std::int32_t>> out;
  // One piece of each text in turn, so that the limit does not leave later texts out.
  std::vector<std::vector<std::int32_t>> tokens;
  for (const std::string& text : texts) {
    MEMSLOT_TRY(auto ids, tokenizer.encode(text));
    tokens.push_back(std::move(ids));
  }
  std::int64_t taken = 0;
  for (std::int64_t at = 0; taken < limit; at += longest) {
    bool any = false;
    for (const auto& ids : tokens) {
      const std::int64_t count = std::min({longest, std::ssize(ids) - at, limit - taken});
      if (count < 2) continue;
      out.emplace_back(ids.begin() + at, ids.begin() + at + count);
      taken += count;
      any = true;
    }
    if (!any) break;
  }
  return out;
}

}  // namespace

struct Learner::Impl {
  Impl(Gpt& g, const ModelFile& f, const Tokenizer& t, LearnTexts x, ComputeGate& c)
      : gpt(g), file(f), tokenizer(t), texts(std::move(x)), gate(c) {}

  Gpt& gpt;
  const ModelFile& file;
  const Tokenizer& tokenizer;
  LearnTexts texts;
  ComputeGate& gate;
  int layer = -1;  // which the following belong to
  std::unique_ptr<UpperStack> stack;
  std::optional<SharedText> anchor, control;
  std::size_t peak = 0;

  void release() {
    layer = -1;
    stack.reset();
    anchor.reset();
    control.reset();
  }
  std::size_t held() const {
    const auto text = [](const std::optional<SharedText>& t) {
      return t ? t->material.bytes() + t->base_output.size() * sizeof(float) : 0;
    };
    return (stack ? stack->bytes() : 0) + text(anchor) + text(control);
  }
  Result<std::size_t> slot_of(int wanted) const;
  Status prepare(std::size_t slot, const LearnConfig& config, GateSlices& slices,
                 const LearnProgress& progress);
  Status prepare_anchor(std::size_t slot, GateSlices& slices);
  Status prepare_control(std::size_t slot, GateSlices& slices);
};

Result<std::size_t> Learner::Impl::slot_of(int wanted) const {
  const auto& layers = gpt.options().slot_layers;
  if (layers.empty()) return invalid("slots of this generator", "at least one", "none");
  if (wanted < 0) return std::size_t{0};
  const auto found = std::ranges::find(layers, wanted);
  if (found != layers.end()) return static_cast<std::size_t>(found - layers.begin());
  return invalid("learn option 'layer'",
                 "a slot of this generator, such as " + std::to_string(layers[0]), wanted);
}

Status Learner::Impl::prepare(std::size_t slot, const LearnConfig& config, GateSlices& slices,
                              const LearnProgress& progress) {
  const int wanted = gpt.options().slot_layers[slot];
  const auto tell = [&](const char* phase) -> Status {
    const LearnProgressReport now{0, config.max_steps, 0, 0, phase};
    if (!progress || slices.outside([&] { return progress(now); })) return ok();
    return Error{ErrorCode::kCancelled, "learning: stopped while " + std::string(phase)};
  };
  if (layer != wanted || stack == nullptr) {
    release();
    MEMSLOT_TRY(tell("packing weights"));
    MEMSLOT_TRY(stack, slices.outside([&] { return UpperStack::make(gpt, file, wanted); }));
    layer = wanted;
  }
  if (config.anchor > 0 && !anchor && !texts.anchor.empty()) {
    MEMSLOT_TRY(tell("reading anchor texts"));
    MEMSLOT_TRY(prepare_anchor(slot, slices));
  }
  if (!control && !texts.control.empty()) {
    MEMSLOT_TRY(tell("reading control texts"));
    MEMSLOT_TRY(prepare_control(slot, slices));
  }
  return ok();
}

Status Learner::Impl::prepare_anchor(std::size_t slot, GateSlices& slices) {
  const std::int64_t longest = std::min<std::int64_t>(kSharedSequence, gpt.config().context);
  MEMSLOT_TRY(auto sequences, shared_sequences(tokenizer, texts.anchor, kAnchorTokens, longest));
  if (sequences.empty()) return ok();
  SharedText text;
  MEMSLOT_TRY(text.material, Material::read(gpt, slot, std::move(sequences), slices));
  const Material& m = text.material;
  text.base_output.resize(static_cast<std::size_t>(m.rows * m.d_model));
  for (std::int64_t row = 0; row < m.rows; row += Gpt::kMaxRows) {
    const std::int64_t n = std::min(Gpt::kMaxRows, m.rows - row);
    gpt.mlp(gpt.layer(layer).mlp, m.input_rows(row, n),
            {text.base_output.data() + row * m.d_model, DType::kF32, n, m.d_model, m.d_model});
    slices.breathe();
  }
  anchor = std::move(text);
  return ok();
}

Status Learner::Impl::prepare_control(std::size_t slot, GateSlices& slices) {
  const std::int64_t longest = gpt.config().context;
  MEMSLOT_TRY(auto sequences, shared_sequences(tokenizer, texts.control, kControlTokens, longest));
  if (sequences.empty()) return ok();
  SharedText text;
  MEMSLOT_TRY(text.material, Material::read(gpt, slot, std::move(sequences), slices));
  const SlotOutput base = [this](ConstMatrix x, Matrix y) { gpt.mlp(gpt.layer(layer).mlp, x, y); };
  const std::size_t passages = text.material.tokens.size();
  MEMSLOT_TRY(const RowLosses losses, measure(text.material, passages, *stack, gpt, base, slices));
  text.base_nll = mean_nll(losses, passages);
  control = std::move(text);
  return ok();
}

Learner::Learner(Gpt& gpt, const ModelFile& file, const Tokenizer& tokenizer, LearnTexts texts,
                 ComputeGate& gate)
    : impl_(std::make_unique<Impl>(gpt, file, tokenizer, std::move(texts), gate)) {}
Learner::~Learner() = default;

Result<LearnOutcome> Learner::learn(const LearnRequest& request, const LearnProgress& progress) {
  const LearnConfig& asked = request.config;
  if (asked.kind != MemoryKind::kMlp && asked.kind != MemoryKind::kLora) {
    return Error{ErrorCode::kNotSupported, "kind to learn: expected mlp or lora, found " +
                                               std::string(memory_kind_name(asked.kind))};
  }
  const int most = std::min(impl_->gpt.config().d_model, impl_->gpt.config().d_ff);
  if (asked.kind == MemoryKind::kLora && asked.rank > most) {
    return invalid("learn option 'rank'", "at most " + std::to_string(most), asked.rank);
  }
  MEMSLOT_TRY(const std::size_t slot, impl_->slot_of(asked.layer));
  LearnConfig config = with_defaults(asked);
  config.layer = impl_->gpt.options().slot_layers[slot];
  // Before the reading of other texts, which takes long the first time.
  MEMSLOT_TRY(SegmentedText source,
              source_text(impl_->tokenizer, request.text, impl_->gpt.config().context));
  GateSlices slices(impl_->gate);
  MEMSLOT_TRY(impl_->prepare(slot, config, slices, progress));
  const auto pointer = [](const std::optional<SharedText>& text) {
    return text ? &*text : nullptr;
  };
  const LearnJobParts parts{impl_->gpt,
                            impl_->file,
                            impl_->tokenizer,
                            *impl_->stack,
                            pointer(impl_->anchor),
                            pointer(impl_->control),
                            slot,
                            slices,
                            progress};
  LearnJob job(parts, request, config, std::move(source));
  auto outcome = job.run();
  impl_->peak = std::max(impl_->held(), job.peak_bytes() + impl_->held() - impl_->stack->bytes()) +
                impl_->gpt.backend().kept_bytes();
  return outcome;
}

const LearnTexts& Learner::texts() const { return impl_->texts; }
ComputeGate& Learner::gate() const { return impl_->gate; }

std::size_t Learner::workspace_bytes() const { return std::max(impl_->held(), impl_->peak); }

void Learner::release_workspace() {
  impl_->release();
  impl_->peak = 0;
  GateSlices slices(impl_->gate);
  impl_->gpt.backend().trim();
}

}  // namespace memslot
