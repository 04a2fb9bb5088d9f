// The fuzzers' seeds, and many mutations of each, in a plain test.
#include "tests/fuzz/model_readers.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

namespace memslot::fuzz {
namespace {

using Read = bool (*)(std::span<const std::byte>);
struct Target {
  const char* name;  // also the corpus folder
  Read read;
};

unsigned test_seed() {
  const char* named = std::getenv("MEMSLOT_TEST_SEED");
  return named == nullptr ? 1 : static_cast<unsigned>(std::strtoul(named, nullptr, 10));
}

std::vector<std::string> corpus(const std::string& name) {
  std::vector<std::string> out;
  for (const auto& entry :
       std::filesystem::directory_iterator(MEMSLOT_SOURCE_DIR "/tests/fuzz/corpus/" + name)) {
    std::ifstream file(entry.path(), std::ios::binary);
    out.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  std::sort(out.begin(), out.end());  // the folder's order is the file system's
  return out;
}

bool run(Read read, const std::string& bytes) { return read(std::as_bytes(std::span(bytes))); }

// One of: cut, a byte changed, a number that is likely to hurt, a piece repeated, a piece taken
// out.
void mutate(std::string& bytes, std::mt19937& rng) {
  static constexpr std::uint64_t kNumbers[] = {
      0, 1, 0x7F, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1ULL << 32, 1ULL << 62, 1ULL << 63, ~0ULL};
  if (bytes.empty()) return;
  const std::size_t at = rng() % bytes.size(),
                    n = 1 + rng() % std::min<std::size_t>(bytes.size() - at, 32);
  switch (rng() % 6) {
    case 0: bytes.resize(at); break;
    case 1: bytes[at] = static_cast<char>(rng()); break;
    case 2: bytes[at] = static_cast<char>(bytes[at] ^ (1 << (rng() % 8))); break;
    case 3:
      for (std::size_t i = 0; i < std::min<std::size_t>(8, bytes.size() - at); ++i) {
        bytes[at + i] = static_cast<char>(kNumbers[rng() % std::size(kNumbers)] >> (8 * i));
      }
      break;
    case 4: bytes.insert(at, bytes.substr(at, n)); break;
    case 5: bytes.erase(at, n); break;
  }
}

class ModelReaders : public testing::TestWithParam<Target> {};

TEST_P(ModelReaders, TakeTheirSeeds) {
  const auto seeds = corpus(GetParam().name);
  ASSERT_GE(seeds.size(), 3U);
  for (const auto& seed : seeds) EXPECT_TRUE(run(GetParam().read, seed));
}

TEST_P(ModelReaders, SurviveMutationsOfTheirSeeds) {
  const unsigned first = test_seed();
  SCOPED_TRACE(testing::Message() << "rerun with MEMSLOT_TEST_SEED=" << first);
  std::mt19937 rng(first);
  const auto seeds = corpus(GetParam().name);
  int taken = 0, refused = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string bytes = seeds[rng() % seeds.size()];
    for (auto n = 1 + rng() % 4; n > 0; --n) mutate(bytes, rng);
    ++(run(GetParam().read, bytes) ? taken : refused);
  }
  EXPECT_GT(refused, 300) << "mutations that never hurt test nothing";
  EXPECT_GT(taken, 30) << "mutations that never get past the first check test nothing";
}

INSTANTIATE_TEST_SUITE_P(Formats, ModelReaders,
                         testing::Values(Target{"gguf", read_gguf},
                                         Target{"safetensors", read_safetensors},
                                         Target{"json", read_json}),
                         [](const auto& c) { return std::string(c.param.name); });

}  // namespace
}  // namespace memslot::fuzz
