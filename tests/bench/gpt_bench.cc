// Question: how many tokens per second does the generator's model read and write?
// Budget:   decode >= 0.95 x and prefill of 512 tokens (last token's logits) >= 1.8 x llama.cpp
// with
//           BF16 weights, on the same machine in the same run (peers.py).
//
//   gpt_bench MODEL [--weights bf16|f32] [--threads N] [--prompt N] [--decode N] [--repeat N]
//             [--breakdown] [--processor-time]
// Prints one JSON object: medians and bests over the repetitions. --processor-time counts the
// process' own time instead of the wall clock's: with --threads 1, on a machine with other work.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>

#include "generator/backend/open_backend.h"
#include "generator/backend/thread_team.h"
#include "generator/model/gpt.h"
#include "tests/bench/timing_backend.h"

namespace memslot::bench {
namespace {

struct Options {
  std::string model;
  DType weights = DType::kBF16;
  int threads = 0, prompt = 512, decode = 128, repeat = 5;
  bool breakdown = false, processor_time = false;
};

double resident_megabytes() {
  std::ifstream file("/proc/self/statm");
  long total = 0, resident = 0;
  file >> total >> resident;
  return static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE)) / 1e6;
}

struct Rates {
  std::vector<double> values;
  double best() const { return *std::max_element(values.begin(), values.end()); }
  double median() const {
    auto sorted = values;
    std::sort(sorted.begin(), sorted.end());
    return sorted[sorted.size() / 2];
  }
};

class Run {
 public:
  Run(const Options& options, Gpt& gpt) : options_(options), gpt_(gpt) {
    const auto& config = gpt.config();
    hidden_ = gpt.backend().alloc(static_cast<std::size_t>(config.d_model) * 4).value();
    logits_ = gpt.backend().alloc(static_cast<std::size_t>(config.vocab) * 4).value();
    for (int i = 0; i < options.prompt; ++i) prompt_.push_back((i * 7919 + 13) % config.vocab);
  }

  // Reads the prompt into a new cache; seconds.
  double prefill(KvCache& cache) {
    const double start = seconds_now(options_.processor_time);
    step(prompt_, cache);
    return seconds_now(options_.processor_time) - start;
  }

  // Writes greedily on top of it; seconds.
  double decode(KvCache& cache) {
    const double start = seconds_now(options_.processor_time);
    for (int i = 0; i < options_.decode; ++i) step({&next_, 1}, cache);
    return seconds_now(options_.processor_time) - start;
  }

  double recompute(KvCache& cache) {
    Sequence sequence{{}, &cache, nullptr, {}};
    const double start = seconds_now(options_.processor_time);
    if (!gpt_.recompute(
                 sequence, 0,
                 {hidden_.data(), DType::kF32, 1, gpt_.config().d_model, gpt_.config().d_model})
             .has_value())
      std::abort();
    return seconds_now(options_.processor_time) - start;
  }

 private:
  void step(std::span<const std::int32_t> ids, KvCache& cache) {
    Sequence sequence{ids, &cache, nullptr, {}};
    const std::int64_t d = gpt_.config().d_model, vocab = gpt_.config().vocab;
    const Matrix hidden{hidden_.data(), DType::kF32, 1, d, d};
    const Matrix logits{logits_.data(), DType::kF32, 1, vocab, vocab};
    if (!gpt_.forward({&sequence, 1}, hidden, /*last_only=*/true).has_value()) std::abort();
    gpt_.logits(hidden, logits);
    gpt_.backend().token_loss(logits, {}, nullptr, nullptr, &next_);
  }

  const Options& options_;
  Gpt& gpt_;
  Buffer hidden_, logits_;
  std::vector<std::int32_t> prompt_;
  std::int32_t next_ = 0;
};

void print_breakdown(const char* what, TimingBackend& timing, double total, int units) {
  std::fprintf(stderr, "%s: %.3f ms\n", what, total * 1e3 / units);
  double counted = 0;
  for (const auto& [name, seconds] : timing.seconds()) {
    counted += seconds;
    std::fprintf(stderr, "  %-22s %9.3f ms %5.1f %%\n", name.c_str(), seconds * 1e3 / units,
                 100 * seconds / total);
  }
  std::fprintf(stderr, "  %-22s %9.3f ms\n", "outside operations", (total - counted) * 1e3 / units);
  timing.reset();
}

int run(const Options& options) {
  auto backend = open_backend({.name = "cpu", .threads = options.threads}).value();
  TimingBackend timing(*backend, options.processor_time);
  const double start = seconds_now(options.processor_time);
  auto file = ModelFile::open(options.model);
  if (!file.has_value()) {
    std::fprintf(stderr, "%s\n", file.error().message.c_str());
    return 1;
  }
  const int slot = std::min(22, file.value().config().layers - 1);
  Backend& used = options.breakdown ? static_cast<Backend&>(timing) : *backend;
  auto gpt = Gpt::load(file.value(), used, {.weights = options.weights, .slot_layers = {slot}});
  if (!gpt.has_value()) {
    std::fprintf(stderr, "%s\n", gpt.error().message.c_str());
    return 1;
  }
  const double load_seconds = seconds_now(options.processor_time) - start,
               loaded = resident_megabytes();
  Run runner(options, *gpt.value());
  Rates prefill, decode, recompute;
  for (int i = 0; i <= options.repeat; ++i) {
    auto cache = gpt.value()->make_kv(options.prompt + options.decode).value();
    timing.reset();
    const double read = runner.prefill(cache);
    if (options.breakdown && i == options.repeat) print_breakdown("prefill", timing, read, 1);
    timing.reset();
    const double wrote = runner.decode(cache);
    if (options.breakdown && i == options.repeat)
      print_breakdown("decode, one token", timing, wrote, options.decode);
    const double again = runner.recompute(cache);
    if (i == 0) continue;  // the first run creates the primitives
    prefill.values.push_back(options.prompt / read);
    decode.values.push_back(options.decode / wrote);
    recompute.values.push_back(again * 1e3 * 1e3 / static_cast<double>(cache.length()));
  }
  std::printf(
      "{\"weights\": \"%s\", \"threads\": %d, \"isa\": \"%s\", \"prompt\": %d, \"decode\": %d, "
      "\"prefill_tokens_per_s\": {\"median\": %.1f, \"best\": %.1f}, "
      "\"decode_tokens_per_s\": {\"median\": %.2f, \"best\": %.2f}, "
      "\"recompute_ms_per_1000_tokens\": %.1f, \"load_s\": %.2f, \"resident_mb\": %.0f, "
      "\"weight_mb\": %.0f, \"scratch_mb\": %.0f}\n",
      std::string(dtype_name(options.weights)).c_str(), backend->info().threads,
      backend->info().isa.c_str(), options.prompt, options.decode, prefill.median(), prefill.best(),
      decode.median(), decode.best(), recompute.median(), load_seconds, loaded,
      static_cast<double>(gpt.value()->memory().weight_bytes) / 1e6,
      static_cast<double>(gpt.value()->memory().scratch_bytes) / 1e6);
  return 0;
}

}  // namespace
}  // namespace memslot::bench

int main(int argc, char** argv) {
  memslot::bound_thread_spinning(argv);
  memslot::bench::Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    const bool more = i + 1 < argc;
    if (arg == "--breakdown")
      options.breakdown = true;
    else if (arg == "--processor-time")
      options.processor_time = true;
    else if (arg == "--weights" && more)
      options.weights = memslot::parse_dtype(argv[++i]).value();
    else if (arg == "--threads" && more)
      options.threads = std::stoi(argv[++i]);
    else if (arg == "--prompt" && more)
      options.prompt = std::stoi(argv[++i]);
    else if (arg == "--decode" && more)
      options.decode = std::stoi(argv[++i]);
    else if (arg == "--repeat" && more)
      options.repeat = std::stoi(argv[++i]);
    else
      options.model = arg;
  }
  if (options.model.empty()) {
    std::fprintf(stderr,
                 "usage: gpt_bench MODEL [--weights bf16|f32] [--threads N] [--prompt N] "
                 "[--decode N] [--repeat N] [--breakdown] [--processor-time]\n");
    return 2;
  }
  return memslot::bench::run(options);
}
