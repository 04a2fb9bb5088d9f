// Question: how fast is the gain table's inner work: one text of 24 steps of 16 tokens, scored with
// 64 lora candidates, slot inputs cached, on the default model?
// Budget:   at least 1.8 x the PyTorch script of the same caching, batching and head evaluation
//           (peers/pytorch_gains_bench.py), and 55 % of the measured bf16 peak.
//
//   gains_bench MODEL [--layer 22] [--tokens 384] [--candidates 64] [--repeats 3] [--threads 0]
//               [--processor-time]
//
// Work of a candidate: 2 F for every weight of the slot's MLP, its corrections, the layers above
// and the output, with F = tokens, and 2 F (F + 1) for every column of a head in attention above
// (two products with half of all pairs of positions). The peak is that of bf16 dot products
// in registers, measured in the same run. Before timing, one candidate's loss is compared with that
// of a plain forward pass.
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "generator/backend/open_backend.h"
#include "generator/backend/thread_team.h"
#include "generator/gains/gain_scorer.h"
#include "shared/base/clock.h"
#include "shared/memory/layout/lora.h"
#include "tests/bench/bf16_peak.h"
#include "tests/bench/must.h"
#include "tests/bench/timing_backend.h"

namespace memslot::bench {
namespace {

struct Options {
  std::string model;
  int layer = 22, tokens = 384, candidates = 64, repeats = 3, threads = 0;
  bool processor = false;
};

Options parse(int argc, char** argv) {
  Options o;
  if (argc < 2) {
    std::fprintf(stderr, "usage: gains_bench MODEL [options]\n");
    std::exit(2);
  }
  o.model = argv[1];
  for (int i = 2; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--processor-time") o.processor = true;
    const int value = i + 1 < argc ? std::atoi(argv[i + 1]) : 0;
    if (name == "--layer") o.layer = value;
    if (name == "--tokens") o.tokens = value;
    if (name == "--candidates") o.candidates = std::max(2, value);
    if (name == "--repeats") o.repeats = value;
    if (name == "--threads") o.threads = value;
  }
  return o;
}

std::vector<float> random_values(std::int64_t n, float scale, std::mt19937& rng) {
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> out(static_cast<std::size_t>(n));
  for (float& v : out) v = normal(rng);
  return out;
}

std::shared_ptr<const LoadedMemory> make_lora(const Gpt& gpt, int number) {
  std::mt19937 rng(static_cast<unsigned>(number));
  const SlotSignature s = expected_signature(gpt, Sha256{}, 0, MemoryKind::kLora);
  constexpr int kRank = 16;
  LoraValues values;
  values.rank = kRank;
  values.alpha = kRank;
  const auto map = [&](std::int64_t in, std::int64_t out) {
    return LoraValues::Map{random_values(kRank * in, 0.04f, rng),
                           random_values(kRank * out, 0.01f, rng)};
  };
  if (s.form == MlpForm::kSwiGlu) values.gate = map(s.d_model, s.d_ff);
  values.up = map(s.d_model, s.d_ff);
  values.down = map(s.d_ff, s.d_model);
  const MemoryPayload payload = must(make_lora_payload(s, DType::kBF16, values));
  return must(LoadedMemory::load(payload, {"default", "m" + std::to_string(number), 1},
                                 sha256(payload.bytes()), s, nullptr, gpt));
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double work_gflop(const ModelConfig& c, int layer, double tokens) {
  const double d = c.d_model, f = c.d_ff;
  const double inner = c.mlp_form == MlpForm::kSwiGlu ? 2 * f : f;
  const double mlp = d * inner + d * f, lora = 16 * (2 * d + inner + f + d);
  const double above = d * (c.q_width() + 2.0 * c.kv_width()) + d * c.q_width() + mlp;
  const double attention = (tokens + 1) * c.q_width();
  return 2e-9 * tokens * (mlp + lora + (above + attention) * (c.layers - 1 - layer) + d * c.vocab);
}

// All candidates, in as many batches as it takes; seconds.
double score_all(GainScorer& scorer,
                 const std::vector<std::shared_ptr<const LoadedMemory>>& memories,
                 GateSlices& slices, bool processor, std::vector<GainFigures>* out) {
  const double start = seconds_now(processor);
  const auto batch = static_cast<std::size_t>(scorer.batch());
  for (std::size_t first = 0; first < memories.size(); first += batch) {
    const auto part = std::span(memories).subspan(first, std::min(batch, memories.size() - first));
    auto figures = must(scorer.score(part, slices));
    if (out != nullptr) std::move(figures.begin(), figures.end(), std::back_inserter(*out));
  }
  return seconds_now(processor) - start;
}

// The mean loss of a plain forward pass of the model with this memory.
double plain_loss(Gpt& gpt, const std::vector<std::int32_t>& ids,
                  const std::shared_ptr<const LoadedMemory>& memory) {
  SessionSlot slot(gpt, 0);
  slot.activate(memory);
  const SlotForward through = [&](const SlotCall& call) { slot.forward(call); };
  KvCache kv = must(gpt.make_kv(std::ssize(ids)));
  double sum = 0;
  for (std::size_t at = 0; at + 1 < ids.size(); at += 32) {
    const std::size_t count = std::min<std::size_t>(32, ids.size() - 1 - at);
    Sequence sequence{std::span(ids).subspan(at, count), &kv, &through, {"m"}};
    const auto rows = static_cast<std::int64_t>(count);
    std::vector<float> hidden(count * static_cast<std::size_t>(gpt.config().d_model));
    const Matrix h{hidden.data(), DType::kF32, rows, gpt.config().d_model, gpt.config().d_model};
    if (!gpt.forward({&sequence, 1}, h, false)) std::exit(1);
    std::vector<float> logits(count * static_cast<std::size_t>(gpt.config().vocab)), nll(count);
    const Matrix l{logits.data(), DType::kF32, rows, gpt.config().vocab, gpt.config().vocab};
    gpt.logits(h, l);
    gpt.backend().token_loss(l, std::span(ids).subspan(at + 1, count), nll.data(), nullptr,
                             nullptr);
    for (const float v : nll) sum += static_cast<double>(v);
  }
  return sum / static_cast<double>(ids.size() - 1);
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
  for (int i = 0; i <= o.tokens; ++i) ids.push_back((i * 7919 + 13) % file.config().vocab);
  std::vector<std::shared_ptr<const LoadedMemory>> memories;
  for (int i = 0; i < o.candidates; ++i) memories.push_back(make_lora(*gpt, i));
  std::vector<std::int32_t> steps;
  for (int left = o.tokens; left > 0; left -= steps.back()) steps.push_back(std::min(left, 16));
  const double reading = seconds_now(o.processor);
  GainScorer scorer = must(GainScorer::read(*gpt, 0, ids, steps, slices));
  const double read_seconds = seconds_now(o.processor) - reading;

  std::vector<GainFigures> figures;
  score_all(scorer, memories, slices, o.processor, &figures);  // makes the primitives, too
  double loss = 0;
  for (const float v : figures[1].token_nll) loss += static_cast<double>(v) / o.tokens;
  const double plain = plain_loss(*gpt, ids, memories[1]);
  if (std::abs(loss - plain) > 1e-5 * plain) {
    std::fprintf(stderr, "gains_bench: loss: expected %.7f, found %.7f\n", plain, loss);
    return 1;
  }
  const int threads = inner->info().threads;
  const double work = work_gflop(file.config(), o.layer, o.tokens) * o.candidates;
  // The peak before and after each round: the processor's clock drifts.
  std::vector<double> seconds, peaks, shares;
  backend.reset();
  peaks.push_back(bf16_peak_gflops(threads, o.processor));
  for (int r = 0; r < o.repeats; ++r) {
    seconds.push_back(score_all(scorer, memories, slices, o.processor, nullptr));
    peaks.push_back(bf16_peak_gflops(threads, o.processor));
    const double peak = (peaks[peaks.size() - 2] + peaks.back()) / 2;
    shares.push_back(peak > 0 ? work / seconds.back() / peak : 0);
  }
  const double seconds_median = median(seconds);
  double sum = 0;
  for (const auto& [name, all] : backend.seconds()) {
    std::fprintf(stderr, "  %-28s %8.2f ms\n", name.c_str(), 1e3 * all / o.repeats);
    sum += all / o.repeats;
  }
  std::fprintf(stderr, "  %-28s %8.2f ms\n", "not in any operation", 1e3 * (seconds_median - sum));
  std::printf(
      "{\"gains_ms\": %.1f, \"gains_tokens_per_s\": %.0f, \"gains_gflops\": %.0f, "
      "\"bf16_peak_gflops\": %.0f, \"gains_share_of_peak\": %.3f, \"read_ms\": %.1f, "
      "\"workspace_mb\": %.1f, \"threads\": %d}\n",
      1e3 * seconds_median, o.candidates * o.tokens / seconds_median, work / seconds_median,
      median(peaks), median(shares), 1e3 * read_seconds, 1e-6 * static_cast<double>(scorer.bytes()),
      threads);
  return 0;
}

}  // namespace
}  // namespace memslot::bench

int main(int argc, char** argv) {
  memslot::bound_thread_spinning(argv);
  return memslot::bench::run(memslot::bench::parse(argc, argv));
}
