// Learns every sample source by a recipe and prints what DESIGN section 3 promises: recall, control
// NLL, cloze prompts answered with and without the memory, time per source.
//
//   recipe_report MODEL SAMPLES [--control development|test] [--kinds mlp,lora] [--layouts
//   cumulative,overlap]
//                 [--sources N] [--no-cloze] [--layer L] [--threads N] [--json] [--json] [--config
//                 '{"lr":0.002}']...
// Each --config (learn options over the defaults) is one line of the table. With --json, last, one
// JSON line for each source.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "generator/backend/open_backend.h"
#include "generator/backend/thread_team.h"
#include "generator/learn/learner.h"
#include "generator/slot/slot.h"
#include "shared/base/clock.h"
#include "shared/base/digest.h"
#include "tests/bench/must.h"
#include "tests/bench/sample_texts.h"

namespace memslot::bench {
namespace {

struct Options {
  std::string model, samples, control = "development";
  std::vector<std::string> kinds = {"mlp", "lora"}, layouts = {"cumulative", "overlap"}, configs;
  std::size_t sources = 1000;
  int layer = 22, threads = 0;
  bool cloze = true, json = false;
};

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> out;
  std::istringstream in(list);
  for (std::string item; std::getline(in, item, ',');) out.push_back(item);
  return out;
}

Options parse(int argc, char** argv) {
  Options o;
  if (argc < 3) {
    std::fprintf(stderr, "usage: recipe_report MODEL SAMPLES [options]\n");
    std::exit(2);
  }
  o.model = argv[1];
  o.samples = argv[2];
  for (int i = 3; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--no-cloze" || name == "--json") {
      (name == "--json" ? o.json : o.cloze) = name == "--json";
      continue;
    }
    const std::string value = i + 1 < argc ? argv[++i] : "";
    if (name == "--control") o.control = value;
    if (name == "--kinds") o.kinds = split(value);
    if (name == "--layouts") o.layouts = split(value);
    if (name == "--config") o.configs.push_back(value);
    if (name == "--sources") o.sources = std::stoul(value);
    if (name == "--layer") o.layer = std::stoi(value);
    if (name == "--threads") o.threads = std::stoi(value);
  }
  if (o.configs.empty()) o.configs.push_back("{}");
  return o;
}

class Report {
 public:
  explicit Report(const Options& o)
      : options_(o),
        backend_(must(open_backend({"cpu", o.threads}))),
        file_(must(ModelFile::open(o.model))),
        tokenizer_(must(Tokenizer::make(file_.tokenizer()))),
        gate_(clock_) {
    GptOptions options;
    options.weights = backend_->info().bf16 ? DType::kBF16 : DType::kF32;
    options.slot_layers = {o.layer};
    gpt_ = must(Gpt::load(file_, *backend_, std::move(options)));
    learner_ = std::make_unique<Learner>(
        *gpt_, file_, tokenizer_,
        LearnTexts{prose(o.samples), control_passages(o.samples, o.control)}, gate_);
    sources_ = sample_sources(o.samples);
    sources_.resize(std::min(sources_.size(), o.sources));
  }

  void run() {
    std::printf("%-5s %-10s %7s %7s %8s %7s %7s %6s %6s  options\n", "kind", "layout", "recall",
                "(min)", "control", "(max)", "cloze", "steps", "s");
    for (const std::string& config : options_.configs) {
      for (const std::string& kind : options_.kinds) {
        for (const std::string& layout : options_.layouts) one(kind, layout, config);
      }
    }
    if (options_.cloze)
      std::printf("cloze without a memory: %.1f %%\n", 100 * cloze_share(nullptr));
    if (options_.json) {
      for (const auto& line : lines_) std::printf("%s\n", line.dump().c_str());
    }
  }

 private:
  void one(const std::string& kind, const std::string& layout, const std::string& options) {
    auto json = nlohmann::json::parse(options);
    json["kind"] = kind;
    json["segments"] = layout;
    double recall = 0, least = 1, locality = 0, worst = -1, seconds = 0, cloze = 0, steps = 0;
    for (std::size_t i = 0; i < sources_.size(); ++i) {
      LearnRequest request;
      request.text = sources_[i].text;
      request.config = must(learn_config_from_json(json.dump()));
      const auto outcome = must(learner_->learn(request, nullptr));
      const LearnStats& s = outcome.stats;
      recall += s.recall.value_or(0);
      least = std::min(least, s.recall.value_or(0));
      locality += s.locality.value_or(0);
      worst = std::max(worst, s.locality.value_or(0));
      seconds += s.wall_seconds;
      steps += s.steps.value_or(0);
      const double answered = options_.cloze ? cloze_of(i, &outcome.payload) : 0;
      cloze += answered;
      lines_.push_back({{"kind", kind},
                        {"layout", layout},
                        {"source", sources_[i].name},
                        {"control", options_.control},
                        {"recall", s.recall.value_or(0)},
                        {"recall_before", s.recall_before.value_or(0)},
                        {"nll_before", s.nll_before},
                        {"nll_after", s.nll_after},
                        {"control_change", s.locality.value_or(0)},
                        {"cloze", answered},
                        {"steps", s.steps.value_or(0)},
                        {"tokens", s.tokens},
                        {"seconds", s.wall_seconds},
                        {"wise_min_activation", s.wise_min_activation},
                        {"config", nlohmann::json::parse(s.config)}});
    }
    const auto n = static_cast<double>(sources_.size());
    std::printf("%-5s %-10s %6.1f%% %6.1f%% %+7.2f%% %+6.2f%% %6.1f%% %6.1f %6.1f  %s\n",
                kind.c_str(), layout.c_str(), 100 * recall / n, 100 * least, 100 * locality / n,
                100 * worst, 100 * cloze / n, steps / n, seconds / n, options.c_str());
    std::fflush(stdout);
  }

  double cloze_share(const MemoryPayload* payload) {
    double sum = 0;
    for (std::size_t i = 0; i < sources_.size(); ++i) sum += cloze_of(i, payload);
    return sum / static_cast<double>(sources_.size());
  }

  // The share of a source's prompts whose greedy continuation contains the answer near its start.
  double cloze_of(std::size_t i, const MemoryPayload* payload) {
    SessionSlot slot(*gpt_, 0);
    if (payload != nullptr) {
      slot.activate(must(LoadedMemory::load(*payload, MemoryRef{}, sha256(payload->bytes()),
                                            payload->signature(), nullptr, *gpt_)));
    }
    int right = 0;
    for (const Cloze& c : sources_[i].cloze) {
      const std::string text = continuation(slot, c);
      if (text.find(c.answer) != std::string::npos) ++right;
      if (std::getenv("RECIPE_VERBOSE") != nullptr) {
        std::printf("  %s | %s ->%s\n", c.prompt.c_str(), c.answer.c_str(), text.c_str());
      }
    }
    return sources_[i].cloze.empty()
               ? 0
               : static_cast<double>(right) / static_cast<double>(sources_[i].cloze.size());
  }

  // As many tokens as the answer has, and four more.
  std::string continuation(SessionSlot& slot, const Cloze& c) {
    const SlotForward forward = [&](const SlotCall& call) { slot.forward(call); };
    std::vector<std::int32_t> next = must(tokenizer_.encode(c.prompt)), made;
    const std::size_t count = must(tokenizer_.encode(" " + c.answer)).size() + 4;
    KvCache kv = must(gpt_->make_kv(static_cast<std::int64_t>(next.size() + count)));
    std::vector<float> hidden(static_cast<std::size_t>(gpt_->config().d_model));
    std::vector<float> logits(static_cast<std::size_t>(gpt_->config().vocab));
    while (made.size() < count) {
      Sequence sequence{next, &kv, &forward, {"x"}};
      const Matrix h{hidden.data(), DType::kF32, 1, std::ssize(hidden), std::ssize(hidden)};
      if (!gpt_->forward({&sequence, 1}, h, true)) std::abort();
      gpt_->logits(h, {logits.data(), DType::kF32, 1, std::ssize(logits), std::ssize(logits)});
      const auto best =
          static_cast<std::int32_t>(std::ranges::max_element(logits) - logits.begin());
      made.push_back(best);
      next = {best};
    }
    return must(tokenizer_.decode(made));
  }

  Options options_;
  SystemClock clock_;
  std::unique_ptr<Backend> backend_;
  ModelFile file_;
  Tokenizer tokenizer_;
  std::unique_ptr<Gpt> gpt_;
  ComputeGate gate_;
  std::unique_ptr<Learner> learner_;
  std::vector<SampleSource> sources_;
  std::vector<nlohmann::json> lines_;
};

}  // namespace
}  // namespace memslot::bench

int main(int argc, char** argv) {
  memslot::bound_thread_spinning(argv);
  memslot::bench::Report(memslot::bench::parse(argc, argv)).run();
  return 0;
}
