#pragma once
// The gain table: what every memory would have been worth at every step of many texts, scored
// counterfactually by a generator (docs/formats/gains.md). Oracle, regret and as many epochs of
// episodes as one likes follow from it without the model.
//
//   gain(t, m) = log p(tokens of step t | m active over the whole prefix) - the same with base,
//                nats per token
//   generic(t) = max(0, mean gain over up to 8 memories of training sources other than the text's)
//   net(t, m)  = gain(t, m) - generic(t);  0 for base
//
// Where a bank is large, a stream is scored with some of its memories only (TableStream::scored).
//
// On disk it is a safetensors file: "hidden" (S, D), "gain" (S, M), "entropy" and "surprise"
// (S, M + 1; column 0 is base), "activation" (S, M), "keys" (n, D), and the rest as JSON in its
// metadata.
//
// Errors:  parse(), load(): kNotFound, kIo, kCorruption (cut off, sizes that disagree, numbers that
//          are not finite).
// Threads: plain data.
#include <algorithm>  // binary_search
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "shared/memory/record.h"
#include "shared/tensor/tensor.h"

namespace memslot {

enum class Split { kTrain, kValidation, kTest };
enum class StreamKind {
  kStream,        // unannounced switches between sources and uncovered passages
  kPrompt,        // a prompt of one source, one decision, its gain over what follows
  kContinuation,  // unseen continuation of a known source
  kControl        // clean prose that no memory should touch
};

struct TableSource {
  std::string name;
  Split split = Split::kTrain;
  bool has_memory = false;
};

struct TableMemory {
  MemoryRef ref;
  MemoryKind kind = MemoryKind::kLora;
  std::int32_t source = -1;               // into sources
  std::uint32_t first_key = 0, keys = 0;  // rows of GainTable::keys
  float wise_min_activation = 0;          // for the WISE rule
};

struct TableStep {
  std::uint32_t tokens = 0;
  std::int32_t source = -1;  // whose text it is; -1: of none of the sources
  bool covered = false;      // some memory was learned from this text's source
};

struct TableStream {
  std::string id;
  StreamKind kind = StreamKind::kStream;
  Split split = Split::kTrain;
  std::uint64_t first = 0;  // row of the first step in the tensors
  std::vector<TableStep> steps;
  // Places of the memories that were scored on it, ascending; empty: all. The others' gains,
  // entropies and distances on this stream are 0 and mean nothing.
  std::vector<std::uint32_t> scored{};

  bool has(std::size_t memory) const {
    return scored.empty() || std::binary_search(scored.begin(), scored.end(), memory);
  }
};

struct GainTable {
  std::string model;  // digest, hex
  std::int32_t layer = 0;
  std::uint32_t step_tokens = 16;
  std::uint64_t seed = 0;
  std::vector<TableSource> sources;
  std::vector<TableMemory> memories;   // M
  std::vector<std::uint32_t> generic;  // memories whose mean gain is the generic one's
  std::vector<TableStream> streams;
  HostTensor hidden;      // (S, D): mean slot input over the step's tokens
  HostTensor gain;        // (S, M)
  HostTensor entropy;     // (S, M + 1)
  HostTensor surprise;    // (S, M + 1)
  HostTensor activation;  // (S, M): mean over tokens of || slot output with m - with base ||_2
  HostTensor keys;        // (n, D), raw

  std::uint64_t rows() const { return static_cast<std::uint64_t>(hidden.shape[0]); }
  std::uint32_t dim() const { return static_cast<std::uint32_t>(hidden.shape[1]); }
  float gain_of(std::uint64_t row, std::size_t memory) const {
    return gain.values[row * memories.size() + memory];
  }
  // Of the step at `row`, whose text is of `source`.
  float generic_of(std::uint64_t row, std::int32_t source) const;

  std::string bytes() const;
  static Result<GainTable> parse(std::string_view bytes);
  Status save(const std::string& path) const;
  static Result<GainTable> load(const std::string& path);
};

// The memories that stand for "any memory": up to `count` of training sources, drawn by the seed.
std::vector<std::uint32_t> draw_generic(const GainTable& table, std::size_t count,
                                        std::uint64_t seed);

}  // namespace memslot
