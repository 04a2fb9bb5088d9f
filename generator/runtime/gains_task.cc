// `gains`: what every memory of a list would have made of every step of a text (gain_scorer.h).
#include <algorithm>  // min

#include "generator/gains/gain_scorer.h"
#include "generator/runtime/selector.h"
#include "generator/runtime/slot_infos.h"
#include "generator/runtime/task_events.h"
#include "generator/runtime/tasks.h"
#include "shared/base/base64.h"
#include "shared/base/rng.h"

namespace memslot {
namespace {

using nlohmann::json;

constexpr std::chrono::seconds kFetch{10};
constexpr std::size_t kHiddenFloats = std::size_t{1} << 17;  // of one event: well under 1 MiB

class Gains {
 public:
  Gains(const TaskContext& context, GainsArguments arguments, ComputeGate& gate)
      : context_(context), arguments_(std::move(arguments)), gate_(gate) {}
  Result<std::string> run();

 private:
  using Memory = std::shared_ptr<const LoadedMemory>;

  Result<std::vector<std::int32_t>> steps(std::size_t tokens) const;
  Status open_selector();
  Result<Memory> load(const MemoryRef& ref);
  void tell_hidden(const GainScorer& scorer, std::int64_t width) const;
  void tell_rows(std::size_t first, const std::vector<Memory>& batch,
                 const std::vector<GainFigures>& figures) const;
  Status score_all(GainScorer& scorer, GateSlices& slices);

  const TaskContext& context_;
  const GainsArguments arguments_;
  ComputeGate& gate_;
  std::unique_ptr<Selector> selector_;
};

Result<std::vector<std::int32_t>> Gains::steps(std::size_t tokens) const {
  if (!arguments_.steps.empty()) return arguments_.steps;
  std::vector<std::int32_t> out;
  for (auto left = static_cast<std::int32_t>(tokens) - 1; left > 0; left -= out.back()) {
    out.push_back(std::min(left, arguments_.step_tokens));
  }
  return out;
}

// As a session that pins a memory: that is how one is fetched.
Status Gains::open_selector() {
  Engine& engine = context_.engine;
  wire::OpenSession open;
  open.session = random_nonce();
  open.incarnation = engine.link.incarnation();
  open.model = engine.model_digest;
  open.slots = slot_infos(engine.gpt);
  open.namespaces = arguments_.namespaces;
  open.policy = "base";
  open.sampling = "{}";
  selector_ = std::make_unique<Selector>(engine.link, engine.loader.residents(), engine.clock,
                                         std::move(open));
  return selector_->open(deadline_in(engine.clock, kFetch));
}

Result<Gains::Memory> Gains::load(const MemoryRef& ref) {
  Engine& engine = context_.engine;
  const auto fetched = selector_->fetch(ref, deadline_in(engine.clock, kFetch));
  if (!fetched) return fetched.error().with_context("memory " + ref.text());
  const FetchedMemory& memory = fetched.value();
  return engine.loader.load(arguments_.slot, memory.version.ref, memory.version.sha256,
                            memory.payload);
}

void Gains::tell_hidden(const GainScorer& scorer, std::int64_t width) const {
  const std::span<const float> all(scorer.hidden());
  const auto d = static_cast<std::size_t>(width);
  const std::size_t rows = std::max<std::size_t>(1, kHiddenFloats / d);
  for (std::size_t first = 0; first * d < all.size(); first += rows) {
    const auto values = all.subspan(first * d, std::min(rows * d, all.size() - first * d));
    context_.deliver(dump(json{{"type", "hidden"},
                               {"first", first},
                               {"rows", values.size() / d},
                               {"values", floats_to_base64(values)}}));
  }
}

void Gains::tell_rows(std::size_t first, const std::vector<Memory>& batch,
                      const std::vector<GainFigures>& figures) const {
  json memories = json::array();
  std::vector<float> surprise, entropy, activation;
  const auto append = [](const std::vector<float>& from, std::vector<float>& to) {
    to.insert(to.end(), from.begin(), from.end());
  };
  for (std::size_t i = 0; i < batch.size(); ++i) {
    memories.push_back(batch[i] == nullptr ? "base" : batch[i]->ref().text());
    append(figures[i].surprise, surprise);
    append(figures[i].entropy, entropy);
    append(figures[i].activation, activation);
  }
  context_.deliver(dump(json{{"type", "rows"},
                             {"first", first},
                             {"of", arguments_.memories.size() + 1},
                             {"memories", std::move(memories)},
                             {"surprise", floats_to_base64(surprise)},
                             {"entropy", floats_to_base64(entropy)},
                             {"activation", floats_to_base64(activation)}}));
}

// A batch's memories are held no longer than it takes.
Status Gains::score_all(GainScorer& scorer, GateSlices& slices) {
  const std::size_t all = arguments_.memories.size() + 1;  // base first
  for (std::size_t first = 0; first < all;) {
    const std::size_t count = std::min(static_cast<std::size_t>(scorer.batch()), all - first);
    std::vector<Memory> batch;
    MEMSLOT_TRY(slices.outside([&]() -> Status {
      if (context_.stop.stop_requested()) return Error{ErrorCode::kCancelled, "cancelled"};
      for (std::size_t i = first; i < first + count; ++i) {
        Memory memory;
        if (i > 0) {
          MEMSLOT_TRY(memory, load(arguments_.memories[i - 1]));
        }
        batch.push_back(std::move(memory));
      }
      return ok();
    }));
    MEMSLOT_TRY(const auto figures, scorer.score(batch, slices));
    slices.outside([&] { tell_rows(first, batch, figures); });
    first += count;
  }
  return ok();
}

Result<std::string> Gains::run() {
  Engine& engine = context_.engine;
  const std::size_t slots = engine.gpt.options().slot_layers.size();
  if (arguments_.slot >= slots) {
    return invalid("argument slot", "0 to " + std::to_string(slots - 1), arguments_.slot);
  }
  MEMSLOT_TRY(std::vector<std::int32_t> ids, ids_of(engine.tokenizer, arguments_.text));
  MEMSLOT_TRY(const auto cut, steps(ids.size()));
  MEMSLOT_TRY(const Scheduler::Place place, engine.scheduler.admit(context_.stop));
  if (!arguments_.memories.empty()) {
    MEMSLOT_TRY(open_selector());
  }
  const std::size_t tokens = ids.size();
  {
    GateSlices slices(gate_);
    MEMSLOT_TRY(GainScorer scorer,
                GainScorer::read(engine.gpt, arguments_.slot, std::move(ids), cut, slices));
    slices.outside([&] { tell_hidden(scorer, engine.gpt.config().d_model); });
    MEMSLOT_TRY(score_all(scorer, slices));
  }
  if (selector_ != nullptr) {
    static_cast<void>(
        selector_->close(wire::Observation{}, deadline_in(engine.clock, std::chrono::seconds(1))));
  }
  return dump(json{{"type", "gains"},
                   {"tokens", tokens},
                   {"steps", cut},
                   {"candidates", arguments_.memories.size() + 1},
                   {"d_model", engine.gpt.config().d_model},
                   {"layer", engine.gpt.options().slot_layers[arguments_.slot]},
                   {"model", engine.model_digest.hex()}});
}

}  // namespace

Result<std::string> gains_task(const TaskContext& context, std::string_view arguments,
                               ComputeGate& gate) {
  MEMSLOT_TRY(GainsArguments parsed, gains_arguments(arguments));
  return Gains(context, std::move(parsed), gate).run();
}

}  // namespace memslot
