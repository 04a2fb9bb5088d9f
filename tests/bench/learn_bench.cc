// One learning step of a full MLP on 512 tokens with cached slot input (the case in BASELINES):
// time, rate and where it goes. The steps are those of Learner: forward from the slot up, loss over
// the whole vocabulary for every token, backward down to the slot, AdamW on all weights, packing.
//
//   learn_bench MODEL [--layer 22] [--tokens 512] [--steps 10] [--threads 0] [--processor-time]
//
// Work: 6 F per weight of the slot's MLP but for its input's gradient, 4 F per weight of every
// layer above and of the output, with F = tokens; attention is not counted.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "generator/backend/open_backend.h"
#include "generator/backend/thread_team.h"
#include "generator/learn/material.h"
#include "generator/learn/trainer.h"
#include "generator/learn/upper_stack.h"
#include "shared/base/clock.h"
#include "tests/bench/must.h"
#include "tests/bench/timing_backend.h"

namespace memslot::bench {
namespace {

struct Options {
  std::string model;
  int layer = 22, tokens = 512, steps = 10, threads = 0;
  bool processor = false;
};

Options parse(int argc, char** argv) {
  Options o;
  if (argc < 2) {
    std::fprintf(stderr, "usage: learn_bench MODEL [options]\n");
    std::exit(2);
  }
  o.model = argv[1];
  for (int i = 2; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--processor-time") o.processor = true;
    const int value = i + 1 < argc ? std::atoi(argv[i + 1]) : 0;
    if (name == "--layer") o.layer = value;
    if (name == "--tokens") o.tokens = value;
    if (name == "--steps") o.steps = value;
    if (name == "--threads") o.threads = value;
  }
  return o;
}

double work_gflop(const ModelConfig& c, int layer, double tokens) {
  const double d = c.d_model, f = c.d_ff;
  const double inner = c.mlp_form == MlpForm::kSwiGlu ? 2 * f : f;
  const double mlp = d * inner + d * f;
  const double above = d * (c.q_width() + 2.0 * c.kv_width()) + d * c.q_width() + mlp;
  const double slot = 2 * mlp + 2 * mlp + 2 * d * f;  // forward, weight gradients, d(activation)
  return tokens * (slot + 4 * above * (c.layers - 1 - layer) + 4 * d * c.vocab) * 1e-9;
}

int run(const Options& o) {
  auto inner = must(open_backend({"cpu", o.threads}));
  TimingBackend backend(*inner, o.processor);
  ModelFile file = must(ModelFile::open(o.model));
  GptOptions options;
  options.weights = inner->info().bf16 ? DType::kBF16 : DType::kF32;
  options.slot_layers = {o.layer};
  auto gpt = must(Gpt::load(file, backend, std::move(options)));
  SystemClock clock;
  ComputeGate gate(clock);
  GateSlices slices(gate);
  std::vector<std::int32_t> ids;
  for (int i = 0; i < o.tokens; ++i) ids.push_back((i * 7919 + 13) % file.config().vocab);
  const Material material = must(Material::read(*gpt, 0, {ids}, slices));
  auto stack = must(UpperStack::make(*gpt, file, o.layer));
  must(stack->reserve(o.tokens));
  auto trainer =
      must(MlpTrainer::make({*gpt, file, o.layer, o.tokens}, must(base_mlp_values(file, o.layer))));
  const std::int64_t rows = o.tokens, d = file.config().d_model;
  std::vector<float> x(static_cast<std::size_t>(rows * d)), dx(x.size());
  const Matrix mx{x.data(), DType::kF32, rows, d, d}, mdx{dx.data(), DType::kF32, rows, d, d};
  const LossRows batch = all_rows(material, 0, 1);
  std::vector<double> times;
  double loss = 0;
  for (int step = 0; step <= o.steps; ++step) {  // the first one makes the primitives
    if (step == 1) backend.reset();
    const double start = seconds_now(o.processor);
    trainer.forward(material.input_rows(0, rows), mx);
    backend.add(material.residual_rows(0, rows), 1.0f, mx);
    RowLosses losses;
    stack->gradient(mx, batch, losses, mdx, slices);
    trainer.backward(material.input_rows(0, rows), mdx, false);
    ParameterSet& p = trainer.parameters();
    backend.adamw(p.weight.data(), p.gradient.data(), p.m.data(), p.v.data(), p.size(),
                  {1e-3f, 0.9f, 0.95f, 1e-8f, 0, step + 1});
    const double packing = seconds_now(o.processor);
    must(trainer.pack());
    const double end = seconds_now(o.processor);
    if (step > 0) times.push_back(end - start);
    std::printf("step %d: %.1f ms (packing %.1f), loss %.4f\n", step, 1e3 * (end - start),
                1e3 * (end - packing), loss = mean_nll(losses, 1));
  }
  std::sort(times.begin(), times.end());
  const double median = times[times.size() / 2],
               work = work_gflop(file.config(), o.layer, o.tokens);
  std::printf("%s, %d threads, %s: median %.1f ms a step, least %.1f; %.1f GFLOP, %.0f GFLOP/s\n",
              inner->info().isa.c_str(), inner->info().threads,
              o.processor ? "processor time" : "wall time", 1e3 * median, 1e3 * times.front(), work,
              work / median);
  double sum = 0;
  std::vector<std::pair<double, std::string>> parts;
  for (const auto& [name, seconds] : backend.seconds())
    parts.emplace_back(seconds / o.steps, name), sum += seconds / o.steps;
  std::sort(parts.rbegin(), parts.rend());
  for (const auto& [seconds, name] : parts)
    std::printf("  %-28s %8.2f ms\n", name.c_str(), 1e3 * seconds);
  std::printf("  %-28s %8.2f ms\n", "not in any operation", 1e3 * (median - sum));
  std::printf("workspace: %.1f MB upper layers, %.1f MB trainer\n",
              1e-6 * static_cast<double>(stack->bytes()),
              1e-6 * static_cast<double>(trainer.bytes()));
  return 0;
}

}  // namespace
}  // namespace memslot::bench

int main(int argc, char** argv) {
  memslot::bound_thread_spinning(argv);
  return memslot::bench::run(memslot::bench::parse(argc, argv));
}
