#pragma once
// The texts that every learn job of a generator shares, read from disk once.
#include <string>

#include "generator/learn/learner.h"

namespace memslot {

// `anchor_directory`: its *.txt files, by name. `control_file`: {"passages": [{"text": ...}, ...]}.
// "" for none. kNotFound, kIo, kCorruption (not the form above).
Result<LearnTexts> read_learn_texts(const std::string& anchor_directory,
                                    const std::string& control_file);

}  // namespace memslot
