// Question: how far does the mean NLL of real text move when weights are bf16 instead of f32?
// Budget:   at most 0.5 % of f32's, over 64 windows of 256 tokens of WikiText-2's validation text.
//
//   memslot_wikitext_nll --model MODEL --text FILE [--windows N] [--tokens N] [--threads N]
//
// The text is tokenized once; the windows begin evenly spaced in it, each is read from an empty
// cache, and the mean is over all their next-token predictions. Prints one JSON object.
// Exit code: 0 within the budget, 1 beyond it, 2 usage, 3 a file or weight type that cannot be had.
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "generator/backend/open_backend.h"
#include "generator/backend/thread_team.h"
#include "generator/model/gpt.h"
#include "generator/model/tokenizer.h"

namespace memslot::bench {
namespace {

constexpr double kBudget = 0.005;  // of f32's mean NLL

struct Options {
  std::string model, text;
  std::int64_t windows = 64, tokens = 256;
  int threads = 0;
};

Result<std::string> read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return Error{ErrorCode::kNotFound, "text: expected a file, found nothing at " + path};
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// Sum of the NLL of tokens 1.. of a window, in nats.
Result<double> window_nll(Gpt& gpt, std::span<const std::int32_t> ids, Matrix hidden,
                          Matrix logits) {
  const auto rows = static_cast<std::int64_t>(ids.size());
  MEMSLOT_TRY(KvCache cache, gpt.make_kv(rows));
  Sequence sequence{ids, &cache, nullptr, {}};
  MEMSLOT_TRY(gpt.forward({&sequence, 1}, hidden, /*last_only=*/false));
  gpt.logits(hidden, logits);
  std::vector<std::int32_t> targets(ids.begin() + 1, ids.end());
  targets.push_back(-1);  // nothing follows the last token
  std::vector<float> nll(ids.size());
  gpt.backend().token_loss(logits, targets, nll.data(), nullptr, nullptr);
  double sum = 0;
  for (const float value : nll) sum += static_cast<double>(value);
  return sum;
}

Result<double> mean_nll(const ModelFile& file, Backend& backend, DType weights,
                        std::span<const std::int32_t> ids, const Options& options) {
  MEMSLOT_TRY(auto gpt, Gpt::load(file, backend, {.weights = weights}));
  const std::int64_t d = gpt->config().d_model, vocab = gpt->config().vocab, rows = options.tokens;
  MEMSLOT_TRY(Buffer hidden, backend.alloc(static_cast<std::size_t>(rows * d) * sizeof(float)));
  MEMSLOT_TRY(Buffer logits, backend.alloc(static_cast<std::size_t>(rows * vocab) * sizeof(float)));
  const auto spare = static_cast<std::int64_t>(ids.size()) - rows;
  double sum = 0;
  for (std::int64_t i = 0; i < options.windows; ++i) {
    const std::int64_t first = options.windows == 1 ? 0 : i * spare / (options.windows - 1);
    MEMSLOT_TRY(const double window, window_nll(*gpt,
                                                ids.subspan(static_cast<std::size_t>(first),
                                                            static_cast<std::size_t>(rows)),
                                                {hidden.data(), DType::kF32, rows, d, d},
                                                {logits.data(), DType::kF32, rows, vocab, vocab}));
    sum += window;
  }
  return sum / static_cast<double>(options.windows * (rows - 1));
}

struct Measured {
  std::size_t text_tokens = 0;
  double f32 = 0, bf16 = 0;
  double relative() const { return std::abs(bf16 - f32) / f32; }
};

Result<Measured> measure(const Options& options) {
  MEMSLOT_TRY(const std::string text, read_text(options.text));
  MEMSLOT_TRY(const ModelFile file, ModelFile::open(options.model));
  MEMSLOT_TRY(const Tokenizer tokenizer, Tokenizer::make(file.tokenizer()));
  MEMSLOT_TRY(const auto ids, tokenizer.encode(text));
  if (static_cast<std::int64_t>(ids.size()) < options.tokens) {
    return Error{ErrorCode::kInvalidArgument, "text: expected at least " +
                                                  std::to_string(options.tokens) +
                                                  " tokens, found " + std::to_string(ids.size())};
  }
  MEMSLOT_TRY(auto backend, open_backend({.name = "cpu", .threads = options.threads}));
  Measured out{.text_tokens = ids.size()};
  MEMSLOT_TRY(out.f32, mean_nll(file, *backend, DType::kF32, ids, options));
  MEMSLOT_TRY(out.bf16, mean_nll(file, *backend, DType::kBF16, ids, options));
  return out;
}

int usage() {
  std::fprintf(stderr,
               "usage: memslot_wikitext_nll --model MODEL --text FILE [--windows N] "
               "[--tokens N] [--threads N]\n");
  return 2;
}

bool parse(int argc, char** argv, Options& options) {
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i], value = argv[i + 1];
    if (name == "--model")
      options.model = value;
    else if (name == "--text")
      options.text = value;
    else if (name == "--windows")
      options.windows = std::atoll(value.c_str());
    else if (name == "--tokens")
      options.tokens = std::atoll(value.c_str());
    else if (name == "--threads")
      options.threads = std::atoi(value.c_str());
    else
      return false;
  }
  return argc % 2 == 1 && !options.model.empty() && !options.text.empty() && options.windows >= 1 &&
         options.tokens >= 2;
}

}  // namespace
}  // namespace memslot::bench

int main(int argc, char** argv) {
  memslot::bound_thread_spinning(argv);
  using namespace memslot::bench;
  Options options;
  if (!parse(argc, argv, options)) return usage();
  const auto measured = measure(options);
  if (!measured) {
    std::fprintf(stderr, "%s\n", measured.error().message.c_str());
    return 3;
  }
  const auto& m = measured.value();
  std::printf(
      "{\"text_tokens\": %zu, \"windows\": %lld, \"tokens\": %lld, \"nll_f32\": %.6f, "
      "\"nll_bf16\": %.6f, \"relative_difference\": %.6f, \"budget\": %.3f}\n",
      m.text_tokens, static_cast<long long>(options.windows),
      static_cast<long long>(options.tokens), m.f32, m.bf16, m.relative(), kBudget);
  return m.relative() <= kBudget ? 0 : 1;
}
