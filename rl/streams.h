#pragma once
// The dataset of a gain table (docs/formats/streams.md): sources with splits, the memories that are
// to be learned from them, and the streams on which these are scored. Made from the articles of one
// file and clean other prose by a seed alone: the same input gives the same bytes.
//
//   splits       articles are shuffled and cut 36 : 8 : 16 (train : validation : test); in each a
//                quarter gets no memory and supplies uncovered passages
//   memories     a source's tokens in turn: memory_tokens learned, held_back_tokens that no memory
//                ever learns
//   streams      passages of 2 to 6 steps that follow each other unannounced, until `steps` are
//                full; a quarter of them uncovered, half of these of articles, half clean prose.
//                Covered ones begin at any token of what a memory learned, not at key windows
//   prompts      32 to 64 words of what a memory learned, cut into steps, then 64 more true tokens
//                as one step: the decision. A quarter is of articles without a memory
//   continuations  four steps of the end of what a memory learned, then what was held back
//   controls     passages of clean prose; in training a stretch of eight steps of each of its
//   texts:
//                text in which no memory was ever right is learned from, too
//
// The streams of a split take articles, memories and prose of that split only.
//
// Errors:  kInvalidArgument (too few articles, articles too short, no clean prose in a split).
// Threads: pure function.
#include <cstdint>
#include <string>
#include <vector>

#include "rl/articles.h"
#include "rl/gain_table.h"

namespace memslot {

struct StreamOptions {
  std::uint64_t seed = 1;
  std::uint32_t step_tokens = 16;
  std::uint32_t steps = 24;  // of a switching stream
  std::uint32_t memory_tokens = 512;
  std::uint32_t held_back_tokens = 128;
  std::uint32_t memories_each = 4;                                // at most, of one source
  std::uint32_t streams = 144, prompts = 48, continuations = 24;  // of all splits together
  std::string model;                                              // digest of the model, hex; and
  std::string learn_config;  // JSON: both take part in a memory's name
};

struct SourceArticle {
  std::string title;
  TokenText text;
};
struct CleanText {
  std::string name;
  Split split = Split::kTrain;
  bool control = false;  // outside of training: a control stream is made of it too
  TokenText text;
};

// What one memory is learned from.
struct PlannedMemory {
  std::string id;  // of its source's name and a digest of text, model and configuration
  std::int32_t source = -1;
  std::uint64_t first_word = 0, words = 0;
  std::uint64_t first_token = 0, tokens = 0;  // of the source
  std::string text;
};

struct PlannedStream {
  TableStream table;              // `first` counts over all streams
  std::vector<std::int32_t> ids;  // one more than its steps have tokens: the first has no gain
};

struct StreamSet {
  StreamOptions options;
  std::vector<TableSource> sources;
  std::vector<std::string> titles;  // of the sources
  std::vector<PlannedMemory> memories;
  std::vector<PlannedStream> streams;

  std::string json() const;
};

// As `step_tokens` says: full steps and, at the end, what is left.
std::vector<std::uint32_t> cut_steps(std::size_t tokens, std::uint32_t step_tokens);

Result<StreamSet> make_streams(const std::vector<SourceArticle>& articles,
                               const std::vector<CleanText>& clean, const StreamOptions& options);

}  // namespace memslot
