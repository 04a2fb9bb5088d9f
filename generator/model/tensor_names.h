#pragma once
// Where each TensorRole stands in a file, and how its stored form becomes the delivered one.
//
// Threads: pure functions.
#include <optional>
#include <string>

#include "generator/model/config.h"
#include "generator/model/model_file.h"
#include "shared/tensor/tensor.h"

namespace memslot {

enum class FileFormat { kGguf, kSafetensors };

struct TensorSource {
  enum class Form {
    kAsStored,
    kInterleavedHeads,  // GGUF q, k: in each head, row 2i is row i and row 2i+1 is row i +
                        // head_dim/2
    kTransposed,        // GPT-2 Conv1D: (in, out)
  };
  std::string name;
  Shape stored;  // what the file must have
  Form form = Form::kAsStored;
  int heads = 0;  // for kInterleavedHeads
  int part = 0;   // of `parts` equal parts of the last stored dimension (GPT-2's joined q, k, v)
  int parts = 1;
  bool required = true;
};

// nullopt where the family has no such tensor. REQUIRES: check_config(config) is ok and, for a
// layer role, 0 <= layer < config.layers.
std::optional<TensorSource> tensor_source(FileFormat format, const ModelConfig& config,
                                          TensorRole role, int layer);

// The delivered form of a tensor as stored.
HostTensor delivered(const TensorSource& source, HostTensor stored);

}  // namespace memslot
