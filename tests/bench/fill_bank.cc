// Makes a bank of very many memories, for programs that measure what a bank of that size costs.
//
//   fill_bank DIRECTORY [memories]
//
// Every memory is valid and has all that a learned one has: a payload (of the default model's width
// and an MLP of 8, so that 100,000 fit on a disk), a source text of 48 words, a key for each of its
// windows, figures of its learning; every fourth has been used. Nothing of it comes from a model:
// keys are of the normal distribution.
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "shared/base/log.h"
#include "shared/memory/learn_config.h"
#include "shared/memory/word_windows.h"
#include "storage/memory_bank.h"
#include "storage/open_store.h"
#include "tests/bench/must.h"
#include "tests/support/small_payload.h"

namespace memslot {
namespace {

constexpr int kWidth = 576;  // D of the default model
constexpr int kWords = 48;
constexpr auto kSoon = std::chrono::minutes(5);
// So many write at once that a flush of the log, of some milliseconds, serves them together.
constexpr unsigned kWriters = 48;

constexpr std::array kNames = {"amber",  "brass", "cedar",   "dune",   "ember",    "flint",
                               "glass",  "heron", "ink",     "jetty",  "kelp",     "lantern",
                               "marble", "north", "orchard", "quarry", "riverbed", "salt"};

std::string name_of(std::mt19937& random) { return kNames[random() % kNames.size()]; }

SlotSignature signature_of(MemoryKind kind) {
  SlotSignature out;
  out.model = sha256(std::as_bytes(std::span(std::string_view("the model of fill_bank"))));
  out.layer = 22;
  out.kind = kind;
  out.d_model = kWidth;
  out.d_ff = 8;
  return out;
}

std::string text_of(std::mt19937& random) {
  std::string out;
  for (int i = 0; i < kWords; ++i) out.append(name_of(random)).append(1, ' ');
  return out;
}

void describe(MemoryDraft& draft, unsigned number, std::mt19937& random) {
  const auto share = [&] { return static_cast<double>(random() % 1000) / 1000; };
  const std::string source = fmt::format("{}-{}", name_of(random), name_of(random));
  const auto kind = memory_kind_name(draft.meta.signature.kind);
  draft.meta.ref = {number % 3 == 0 ? "notes" : "default",
                    fmt::format("{}-{:06}-{}", source, number, kind), 0};
  draft.meta.token = fmt::format("t{}", number);
  draft.meta.source = source;
  draft.meta.origin_id = "fill_bank";
  draft.meta.created_unix_ms = 1'700'000'000'000 + std::int64_t{number} * 1000;
  draft.meta.dtype = DType::kBF16;
  LearnStats& stats = draft.meta.stats;
  stats.nll_before = 2.5 + share();
  stats.nll_after = share();
  stats.recall_before = share() / 2;
  stats.recall = share();
  stats.locality = share() / 20;
  stats.wall_seconds = 20 * share();
  stats.steps = 48;
  stats.tokens = 70;
  LearnConfig config;
  config.kind = draft.meta.signature.kind;
  stats.config = to_json(config);
}

void publish(MemoryBank& bank, const Clock& clock, unsigned number) {
  std::mt19937 random(number);
  std::normal_distribution<float> normal;
  MemoryDraft draft;
  const auto kind = number % 10 == 0 ? MemoryKind::kMlp : MemoryKind::kLora;
  const MemoryPayload payload =
      testing_support::payload_of(signature_of(kind), DType::kBF16, static_cast<float>(number));
  const std::string text = text_of(random);
  MemoryKeys keys{kWidth, {}};
  const LearnConfig config;
  const auto windows = word_windows(kWords, config.window_words, config.stride_words);
  keys.values.resize(windows.size() * kWidth);
  for (float& value : keys.values) value = normal(random);
  draft.meta.signature = payload.signature();
  draft.meta.payload_bytes = payload.bytes().size();
  draft.meta.sha256 = sha256(payload.bytes());
  draft.meta.stats.segments = static_cast<std::uint32_t>(windows.size());
  describe(draft, number, random);
  draft.payload = payload.bytes();
  draft.keys = &keys;
  draft.source_text = text;
  const PublishedMemory made = bench::must(bank.publish_memory(draft, deadline_in(clock, kSoon)));
  const auto uses = number % 4 == 0 ? random() % 50 : 0;
  for (std::mt19937::result_type use = 0; use < uses; ++use) {
    bank.note_use(made.version.ref, normal(random) / 10);
  }
}

int fill(const std::string& directory, unsigned memories) {
  const SystemClock clock;
  const auto store = bench::must(open_store(directory, {}, clock));
  MemoryBank bank(*store, clock);
  std::atomic<unsigned> next = 0;
  std::vector<std::thread> writers;
  for (unsigned i = 0; i < kWriters; ++i) {
    writers.emplace_back([&] {
      for (unsigned number = next++; number < memories; number = next++) {
        publish(bank, clock, number);
      }
    });
  }
  for (std::thread& writer : writers) writer.join();
  bench::must(bank.flush_statistics(deadline_in(clock, kSoon)));
  return 0;
}

}  // namespace
}  // namespace memslot

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: fill_bank DIRECTORY [memories]\n");
    return 2;
  }
  return memslot::fill(argv[1], argc > 2 ? static_cast<unsigned>(std::atoi(argv[2])) : 100'000);
}
