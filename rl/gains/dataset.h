#pragma once
// The files of a dataset, read and tokenized by the running pair's generator.
//
//   TEXT                   articles in WikiText's form
//   PROSE/prose/*.txt      clean prose for training streams
//   PROSE/control/development.json, test.json
//                          clean passages of the validation and of the test split; each is a
//                          control stream, too
//
// Errors:  of files and of the pair; kInvalidArgument as make_streams().
// Threads: one.
#include "rl/gains/pair.h"
#include "rl/streams.h"

namespace memslot::gains_program {

struct DatasetFiles {
  std::string text;
  std::string prose;         // folder
  std::size_t articles = 0;  // at most, in the file's order; 0: all
};

// `options.model` is filled in. `tell` hears what is under way.
Result<StreamSet> make_dataset(Pair& pair, const DatasetFiles& files, StreamOptions options,
                               const std::function<void(const std::string&)>& tell);

// The least context a model needs for these streams and memories.
std::size_t longest_text(const StreamSet& set);

}  // namespace memslot::gains_program
