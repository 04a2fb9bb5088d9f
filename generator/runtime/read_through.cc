#include "generator/runtime/read_through.h"

#include <algorithm>  // find, min
#include <chrono>
#include <nlohmann/json.hpp>

#include "generator/learn/gate_slices.h"

namespace memslot {
namespace {

using nlohmann::json;

SlotReader::Progress told(const ReadThrough::Report& report, const char* phase, std::size_t all) {
  return [&report, phase, all](std::int64_t read) {
    return report({static_cast<int>(read), static_cast<int>(all), 0, 0, phase});
  };
}

}  // namespace

struct ReadThrough::Source {
  std::vector<std::int32_t> ids;
  std::size_t slot = 0;
  MemoryRef ref;
  SlotSignature signature;
  std::shared_ptr<const MemoryPayload> outer;

  Result<std::shared_ptr<const LoadedMemory>> load(const MemoryPayload& state,
                                                   const Gpt& gpt) const {
    return LoadedMemory::load(state, ref, sha256(state.bytes()), signature, outer.get(), gpt);
  }
};

Result<std::size_t> ReadThrough::slot_of(int asked) const {
  const auto& layers = engine_.gpt.options().slot_layers;
  const auto layer = asked < 0 ? layers.begin() : std::find(layers.begin(), layers.end(), asked);
  if (layer != layers.end()) return static_cast<std::size_t>(layer - layers.begin());
  return invalid("learn option 'layer'", "one of the generator's slot layers", asked);
}

Result<LearnOutcome> ReadThrough::learn(const wire::AssignLearn& job, int layer,
                                        const Report& report) {
  const auto started = std::chrono::steady_clock::now();
  Source source;
  source.ref = job.target;
  MEMSLOT_TRY(source.slot, slot_of(layer));
  MEMSLOT_TRY(source.ids, engine_.tokenizer->encode(job.text));
  const auto context = static_cast<std::size_t>(engine_.gpt.config().context);
  if (source.ids.size() < 2 || source.ids.size() > context) {
    return invalid("source tokens", "2 to " + std::to_string(context) + " (the context)",
                   source.ids.size());
  }
  MEMSLOT_TRY(source.outer, outer_.get(source.slot, MemoryKind::kDelta));
  source.signature = expected_signature(engine_.gpt, engine_.model_digest, source.slot,
                                        MemoryKind::kDelta, sha256(source.outer->bytes()));
  const DeltaShape shape = outer_.shape();
  MEMSLOT_TRY(const MemoryPayload empty,
              make_delta_state(source.signature, shape, DeltaStateValues::zero(shape)));
  MEMSLOT_TRY(auto memory, source.load(empty, engine_.gpt));
  MEMSLOT_TRY(SlotReader reader, SlotReader::make(engine_.gpt, source.slot, gate_));
  MEMSLOT_TRY(
      reader.read(source.ids, std::move(memory), told(report, "reading", source.ids.size())));
  MEMSLOT_TRY(MemoryPayload state, reader.state());
  MEMSLOT_TRY(LearnStats stats, measure(reader, source, state, report));
  stats.config = json{{"kind", "delta"}, {"layer", source.signature.layer}}.dump();
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - started;
  stats.wall_seconds = wall.count();
  return LearnOutcome{std::move(state), {}, std::move(stats)};
}

Result<LearnStats> ReadThrough::measure(SlotReader& reader, const Source& source,
                                        const MemoryPayload& state, const Report& report) {
  MEMSLOT_TRY(const auto memory, source.load(state, engine_.gpt));
  const auto progress = told(report, "measuring", source.ids.size());
  MEMSLOT_TRY(const SlotReader::Figures before, reader.read(source.ids, nullptr, progress));
  MEMSLOT_TRY(const SlotReader::Figures after, reader.read(source.ids, memory, progress));
  LearnStats stats;
  stats.tokens = static_cast<std::uint32_t>(source.ids.size());
  stats.nll_before = before.nll();
  stats.nll_after = after.nll();
  stats.recall_before = before.recall;
  stats.recall = after.recall;
  stats.wise_min_activation = after.change;
  if (!control_before_) {
    MEMSLOT_TRY(control_before_, control_nll(reader, nullptr, report));
  }
  if (!control_before_ || *control_before_ <= 0) return stats;
  MEMSLOT_TRY(const auto control_after, control_nll(reader, memory, report));
  if (control_after) stats.locality = (*control_after - *control_before_) / *control_before_;
  return stats;
}

// Over all control texts, the memory fresh for each; nothing without any.
Result<std::optional<double>> ReadThrough::control_nll(
    SlotReader& reader, const std::shared_ptr<const LoadedMemory>& memory, const Report& report) {
  double sum = 0;
  std::int64_t scored = 0, left = kControlTokens;
  for (const std::string& text : texts_.control) {
    MEMSLOT_TRY(std::vector<std::int32_t> ids, engine_.tokenizer->encode(text));
    const auto most = std::min<std::int64_t>(left, engine_.gpt.config().context);
    if (std::ssize(ids) > most) ids.resize(static_cast<std::size_t>(most));
    if (ids.size() < 2) continue;
    left -= std::ssize(ids);
    MEMSLOT_TRY(const SlotReader::Figures figures,
                reader.read(ids, memory, told(report, "measuring control texts", ids.size())));
    sum += figures.nll_sum;
    scored += figures.tokens;
  }
  if (scored == 0) return std::optional<double>();
  return std::optional<double>(sum / static_cast<double>(scored));
}

}  // namespace memslot
