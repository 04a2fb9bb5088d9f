#include "generator/runtime/bench_task.h"

#include <algorithm>  // nth_element
#include <chrono>

#include "generator/runtime/session_run.h"
#include "generator/runtime/task_events.h"

namespace memslot {
namespace {

using nlohmann::json;
using SteadyClock = std::chrono::steady_clock;

double seconds_since(SteadyClock::time_point start) {
  return std::chrono::duration<double>(SteadyClock::now() - start).count();
}

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(q * static_cast<double>(values.size() - 1))];
}
double median(std::vector<double> values) { return quantile(std::move(values), 0.5); }

class Bench {
 public:
  Bench(const TaskContext& context, BenchArguments arguments, LearnWorker& learner,
        std::string_view prose)
      : context_(context), arguments_(std::move(arguments)), learner_(learner), prose_(prose) {}

  Result<json> run();

 private:
  Result<json> decode();
  Result<json> prefill();
  Result<json> swap();
  Result<json> recompute();
  Result<json> learn_step();
  Result<json> round_trip();

  // As asked for, or `fallback` where that fits; `beside` more must have room in the context.
  Result<int> tokens(int fallback, int beside) const;
  int repeats(int fallback) const { return arguments_.repeats > 0 ? arguments_.repeats : fallback; }
  Status check_stop() const {
    if (context_.stop.stop_requested()) return Error{ErrorCode::kCancelled, "cancelled"};
    return ok();
  }
  // `count` ids: prose if there is any, else a fixed pattern.
  Result<std::vector<std::int32_t>> ids(int count) const;
  Result<std::unique_ptr<SessionRun>> open(int tokens, wire::KvMode kv, bool controller) const;
  Status on_compute(const std::function<Status()>& work) const {
    return context_.engine.scheduler.run(work);
  }

  const TaskContext& context_;
  const BenchArguments arguments_;
  LearnWorker& learner_;
  const std::string_view prose_;
};

Result<int> Bench::tokens(int fallback, int beside) const {
  const int most = context_.engine.gpt.config().context - beside;
  if (arguments_.tokens == 0) return std::min(fallback, most);
  if (arguments_.tokens <= most) return arguments_.tokens;
  return invalid("argument tokens", "at most " + std::to_string(most) + " (the context)",
                 arguments_.tokens);
}

Result<std::vector<std::int32_t>> Bench::ids(int count) const {
  std::vector<std::int32_t> out;
  if (context_.engine.tokenizer != nullptr && !prose_.empty()) {
    MEMSLOT_TRY(out, context_.engine.tokenizer->encode(prose_));
  }
  const int vocab = context_.engine.gpt.config().vocab;
  for (int i = 0; static_cast<int>(out.size()) < count; ++i) out.push_back((7 + 13 * i) % vocab);
  out.resize(static_cast<std::size_t>(count));
  return out;
}

Result<std::unique_ptr<SessionRun>> Bench::open(int count, wire::KvMode kv, bool controller) const {
  MEMSLOT_TRY(auto text, ids(count));
  RunOptions options;
  options.session.namespaces = arguments_.namespaces;
  options.session.memory = arguments_.memory;
  options.session.slot = arguments_.slot;
  options.session.policy = arguments_.policy;
  options.session.kv = kv;
  options.sampled = true;
  options.needs_controller = controller;
  return SessionRun::open(context_.engine, std::move(text), std::move(options),
                          [](Session& s) { return s.write(1, [](std::int32_t) { return true; }); });
}

Result<json> Bench::decode() {
  constexpr int kPrompt = 16;
  MEMSLOT_TRY(const int count, tokens(128, kPrompt));
  std::vector<double> rates;
  for (int r = 0; r < repeats(3); ++r) {
    MEMSLOT_TRY(check_stop());
    MEMSLOT_TRY(auto run, open(kPrompt, wire::KvMode::kActivated, false));
    MEMSLOT_TRY(run->prefill(context_.stop));
    double seconds = 0;
    for (int done = 0; done < count; done += 16) {
      MEMSLOT_TRY(on_compute([&]() -> Status {
        const auto start = SteadyClock::now();
        MEMSLOT_TRY(
            run->session().write(std::min(16, count - done), [](std::int32_t) { return true; }));
        seconds += seconds_since(start);
        return ok();
      }));
    }
    rates.push_back(count / seconds);
  }
  return json{{"tokens", count}, {"tokens_per_second", median(rates)}, {"runs", rates}};
}

Result<json> Bench::prefill() {
  MEMSLOT_TRY(const int count, tokens(512, 1));
  std::vector<double> rates;
  for (int r = 0; r < repeats(5); ++r) {
    MEMSLOT_TRY(check_stop());
    MEMSLOT_TRY(auto run, open(count, wire::KvMode::kActivated, false));
    MEMSLOT_TRY(on_compute([&]() -> Status {
      const auto start = SteadyClock::now();
      for (bool done = false; !done;) {
        MEMSLOT_TRY(done, run->session().prefill(Gpt::kMaxRows));
      }
      // The last token's logits belong to it, as for the peers.
      MEMSLOT_TRY(run->session().write(1, [](std::int32_t) { return false; }));
      rates.push_back(count / seconds_since(start));
      return ok();
    }));
  }
  return json{{"tokens", count}, {"tokens_per_second", median(rates)}, {"runs", rates}};
}

Result<json> Bench::swap() {
  if (arguments_.memory.kind != MemoryChoice::Kind::kNamed) {
    return invalid("argument memory", "a memory's name", "none");
  }
  MEMSLOT_TRY(auto run, open(16, wire::KvMode::kActivated, true));
  MEMSLOT_TRY(run->prefill(context_.stop));
  const auto slot = static_cast<std::size_t>(arguments_.slot);
  const auto memory = run->session().slot(slot).active();
  std::vector<double> micros, token_us;
  for (int r = 0; r < repeats(200); ++r) {
    MEMSLOT_TRY(check_stop());
    MEMSLOT_TRY(on_compute([&]() -> Status {
      for (const auto& next : {std::shared_ptr<const LoadedMemory>(), memory}) {
        const SlotChange change{slot, next};
        MEMSLOT_TRY(const SwapOutcome swapped, run->session().activate({&change, 1}));
        micros.push_back(swapped.swap_us);
      }
      if (r >= 16) return ok();
      const auto start = SteadyClock::now();
      MEMSLOT_TRY(run->session().write(1, [](std::int32_t) { return true; }));
      token_us.push_back(1e6 * seconds_since(start));
      return ok();
    }));
  }
  MEMSLOT_TRY(const FetchedMemory fetched,
              run->selector()->fetch(arguments_.memory.ref,
                                     deadline_in(context_.engine.clock, std::chrono::seconds(10))));
  std::vector<double> load_ms;
  for (int r = 0; r < 5; ++r) {
    const auto start = SteadyClock::now();
    MEMSLOT_TRY(context_.engine.loader.verify(arguments_.slot, fetched.version.ref,
                                              fetched.version.sha256, fetched.payload));
    load_ms.push_back(1e3 * seconds_since(start));
  }
  return json{
      {"activate_us", median(micros)}, {"activate_p99_us", quantile(micros, 0.99)},
      {"token_us", median(token_us)},  {"share_of_token", median(micros) / median(token_us)},
      {"load_ms", median(load_ms)},    {"payload_bytes", fetched.payload->size()}};
}

Result<json> Bench::recompute() {
  if (arguments_.memory.kind != MemoryChoice::Kind::kNamed) {
    return invalid("argument memory", "a memory's name", "none");
  }
  MEMSLOT_TRY(const int count, tokens(1001, 0));
  MEMSLOT_TRY(auto run, open(count, wire::KvMode::kRecompute, true));
  MEMSLOT_TRY(run->prefill(context_.stop));
  const auto slot = static_cast<std::size_t>(arguments_.slot);
  const auto memory = run->session().slot(slot).active();
  std::vector<double> ms;
  for (int r = 0; r < repeats(3); ++r) {
    MEMSLOT_TRY(check_stop());
    MEMSLOT_TRY(on_compute([&]() -> Status {
      for (const auto& next : {std::shared_ptr<const LoadedMemory>(), memory}) {
        const SlotChange change{slot, next};
        MEMSLOT_TRY(const SwapOutcome swapped, run->session().activate({&change, 1}));
        ms.push_back(swapped.recompute_us / static_cast<double>(swapped.recomputed));
      }
      return ok();
    }));
  }
  return json{{"tokens", count}, {"ms_per_1000_tokens", median(ms)}};
}

Result<json> Bench::learn_step() {
  MEMSLOT_TRY(const int count, tokens(512, 0));
  MEMSLOT_TRY(const auto text, ids(count));
  if (context_.engine.tokenizer == nullptr) {
    return Error{ErrorCode::kNotFound, "tokenizer: expected one in the model file, found none"};
  }
  LearnRequest request;
  MEMSLOT_TRY(request.text, context_.engine.tokenizer->decode(text));
  request.config.segments = SegmentLayout::kCumulative;
  request.config.max_steps = repeats(10) + 1;
  request.config.target_recall = 1;
  request.config.anchor = 0;
  request.config.alone_share = 0;
  request.model_digest = context_.engine.model_digest;
  std::vector<double> seconds;
  auto last = SteadyClock::now();
  int last_step = -1;
  const auto progress = [&](const LearnProgressReport& report) {
    const auto now = SteadyClock::now();
    if (std::string_view(report.phase) == "training") {
      const int steps = report.step - last_step;
      if (last_step >= 0 && steps > 0) {
        seconds.push_back(std::chrono::duration<double>(now - last).count() / steps);
      }
      last_step = report.step;
    }
    last = now;
    return !context_.stop.stop_requested();
  };
  MEMSLOT_TRY(const LearnOutcome outcome, learner_.learn_now(request, progress));
  return json{{"tokens", outcome.stats.tokens},
              {"seconds_per_step", median(seconds)},
              {"runs", seconds},
              {"job_seconds", outcome.stats.wall_seconds}};
}

Result<json> Bench::round_trip() {
  MEMSLOT_TRY(auto run, open(64, wire::KvMode::kActivated, true));
  MEMSLOT_TRY(run->prefill(context_.stop));
  const wire::ChunkSummary chunk = run->session().prompt_summary().chunks.at(0);
  std::vector<double> micros;
  std::uint32_t candidates = 0;
  constexpr int kWarmUp = 10;  // the first ones bring the memory
  for (int r = 0; r < kWarmUp + repeats(500); ++r) {
    MEMSLOT_TRY(check_stop());
    wire::Observation observation = run->steps().outcome();
    observation.step = static_cast<std::uint64_t>(r);
    observation.chunks = {chunk};
    MEMSLOT_TRY(
        const Advice advice,
        run->selector()->observe(std::move(observation),
                                 deadline_in(context_.engine.clock, std::chrono::seconds(5))));
    candidates = advice.directive.candidates;
    for (const wire::SlotAction& action : advice.directive.actions) {
      if (action.action != wire::ActionKind::kUse || action.part < 0) continue;
      MEMSLOT_TRY(
          context_.engine.loader.load(action.slot, action.ref, action.sha256,
                                      advice.parts.at(static_cast<std::size_t>(action.part))));
    }
    if (r >= kWarmUp) micros.push_back(advice.select_us);
  }
  return json{{"median_us", median(micros)},
              {"p99_us", quantile(micros, 0.99)},
              {"candidates", candidates},
              {"repeats", micros.size()}};
}

Result<json> Bench::run() {
  using What = BenchArguments::What;
  switch (arguments_.what) {
    case What::kDecode: return decode();
    case What::kPrefill: return prefill();
    case What::kSwap: return swap();
    case What::kRecompute: return recompute();
    case What::kLearnStep: return learn_step();
    case What::kRoundTrip: return round_trip();
  }
  return invalid("argument what", "a measurement", "none");
}

}  // namespace

Result<std::string> bench_task(const TaskContext& context, std::string_view arguments,
                               LearnWorker& learner, std::string_view prose) {
  MEMSLOT_TRY(BenchArguments parsed, bench_arguments(arguments));
  MEMSLOT_TRY(const Scheduler::Place place, context.engine.scheduler.admit(context.stop));
  static constexpr const char* kNames[] = {"decode",    "prefill",    "swap",
                                           "recompute", "learn_step", "round_trip"};
  const char* name = kNames[static_cast<std::size_t>(parsed.what)];
  MEMSLOT_TRY(json event, Bench(context, std::move(parsed), learner, prose).run());
  event["type"] = "bench";
  event["what"] = name;
  return dump(event);
}

}  // namespace memslot
