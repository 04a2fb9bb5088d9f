// Real keys and queries for index_bench: passages of 32 tokens of a text, each once as a memory
// would have it as a key (read in its context) and once as a query (read alone).
//
//   passage_keys --model MODEL --text FILE --out FILE [--passages N] [--layer L] [--threads N]
//
// Writes a safetensors file with "keys" and "queries" (N, D): means of the slot's inputs over the
// passage, without the first token of what is read. The contexts are windows of 512 tokens, evenly
// spaced in the text, so that passages do not repeat each other.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "generator/backend/open_backend.h"
#include "generator/backend/thread_team.h"
#include "generator/model/gpt.h"
#include "generator/model/tokenizer.h"
#include "generator/runtime/observer.h"
#include "shared/files/write_file.h"
#include "shared/files/write_safetensors.h"

namespace memslot::bench {
namespace {

constexpr std::int64_t kPassage = 32, kWindow = 512, kPerWindow = kWindow / kPassage;

struct Options {
  std::string model, text, out;
  std::int64_t passages = 1000;
  int layer = 22, threads = 0;
};

class Reader {
 public:
  Reader(Gpt& gpt, int layer) : gpt_(gpt), layer_(layer) {}

  // Means over each passage of `ids`, read as one text; the passages are 32 tokens each.
  Status read(std::span<const std::int32_t> ids, std::vector<float>& out) {
    MEMSLOT_TRY(KvCache cache, gpt_.make_kv(static_cast<std::int64_t>(ids.size())));
    Observer observer(gpt_.backend());
    observer.start(0, 0);
    std::vector<wire::ChunkSummary> chunks;
    const SlotForward slot = [&](const SlotCall& call) {
      for (std::int64_t row = 0; row < call.x.rows; ++row) {
        SlotCall one = call;
        one.position = call.position + row;
        one.x = call.x.slice_rows(row, 1);
        observer.add_rows(one);
        if ((one.position + 1) % kPassage != 0) continue;
        for (auto& chunk : observer.summary().chunks) chunks.push_back(std::move(chunk));
        observer.start(0, 0);
      }
      gpt_.mlp(gpt_.layer(layer_).mlp, call.x, call.y);
    };
    Sequence sequence{ids, &cache, &slot, {""}};
    MEMSLOT_TRY(gpt_.forward({&sequence, 1}, {}, /*last_only=*/false));
    add_means(chunks, out);
    return ok();
  }

 private:
  // Two chunks of 16 tokens, or of 15 and 16, make a passage.
  void add_means(const std::vector<wire::ChunkSummary>& chunks, std::vector<float>& out) const {
    for (std::size_t i = 0; i + 1 < chunks.size(); i += 2) {
      const auto &a = chunks[i], &b = chunks[i + 1];
      const float total = static_cast<float>(a.tokens + b.tokens);
      for (std::size_t d = 0; d < a.mean.size(); ++d) {
        out.push_back(
            (static_cast<float>(a.tokens) * a.mean[d] + static_cast<float>(b.tokens) * b.mean[d]) /
            total);
      }
    }
  }

  Gpt& gpt_;
  int layer_;
};

HostTensor rows_of(std::vector<float> values, std::int64_t columns) {
  const auto rows = static_cast<std::int64_t>(values.size()) / columns;
  return {Shape{rows, columns}, std::move(values)};
}

Status run(const Options& options) {
  std::ifstream file(options.text, std::ios::binary);
  if (!file) return Error{ErrorCode::kNotFound, "text: cannot open " + options.text};
  const std::string text(std::istreambuf_iterator<char>(file), {});
  MEMSLOT_TRY(const ModelFile model, ModelFile::open(options.model));
  MEMSLOT_TRY(const Tokenizer tokenizer, Tokenizer::make(model.tokenizer()));
  MEMSLOT_TRY(const auto ids, tokenizer.encode(text));
  const std::int64_t windows = (options.passages + kPerWindow - 1) / kPerWindow;
  if (static_cast<std::int64_t>(ids.size()) < windows * kWindow) {
    return invalid("text tokens", windows * kWindow, ids.size());
  }
  MEMSLOT_TRY(auto backend, open_backend({.name = "cpu", .threads = options.threads}));
  MEMSLOT_TRY(auto gpt, Gpt::load(model, *backend, {.slot_layers = {options.layer}}));
  Reader reader(*gpt, options.layer);
  std::vector<float> keys, queries;
  const std::int64_t stride = static_cast<std::int64_t>(ids.size()) / windows;
  for (std::int64_t w = 0; w < windows; ++w) {
    const auto window = std::span(ids).subspan(static_cast<std::size_t>(w * stride), kWindow);
    MEMSLOT_TRY(reader.read(window, keys));
    for (std::int64_t p = 0; p < kPerWindow; ++p) {
      MEMSLOT_TRY(
          reader.read(window.subspan(static_cast<std::size_t>(p * kPassage), kPassage), queries));
    }
  }
  const std::int64_t d = gpt->config().d_model;
  const auto wanted = static_cast<std::size_t>(options.passages * d);
  keys.resize(std::min(keys.size(), wanted));
  queries.resize(std::min(queries.size(), wanted));
  return write_file(options.out, safetensors_bytes({{"keys", rows_of(std::move(keys), d)},
                                                    {"queries", rows_of(std::move(queries), d)}},
                                                   {{"model", options.model}}));
}

bool parse(int argc, char** argv, Options& options) {
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i], value = argv[i + 1];
    if (name == "--model")
      options.model = value;
    else if (name == "--text")
      options.text = value;
    else if (name == "--out")
      options.out = value;
    else if (name == "--passages")
      options.passages = std::atoll(value.c_str());
    else if (name == "--layer")
      options.layer = std::atoi(value.c_str());
    else if (name == "--threads")
      options.threads = std::atoi(value.c_str());
    else
      return false;
  }
  return argc % 2 == 1 && !options.model.empty() && !options.text.empty() && !options.out.empty() &&
         options.passages >= 1;
}

}  // namespace
}  // namespace memslot::bench

int main(int argc, char** argv) {
  memslot::bound_thread_spinning(argv);
  memslot::bench::Options options;
  if (!memslot::bench::parse(argc, argv, options)) {
    std::fprintf(stderr,
                 "usage: passage_keys --model MODEL --text FILE --out FILE [--passages N]\n");
    return 2;
  }
  const auto done = memslot::bench::run(options);
  if (!done) std::fprintf(stderr, "%s\n", done.error().message.c_str());
  return done ? 0 : 1;
}
