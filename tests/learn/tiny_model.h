#pragma once
// A tiny model of the golden fixtures, in f32, with one slot; and a tokenizer of single bytes for
// it.
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "generator/backend/open_backend.h"
#include "generator/model/gpt.h"
#include "generator/model/model_file.h"
#include "tests/support/fixture.h"

namespace memslot::testing_support {

template <class T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  return std::move(result).value();
}
inline void must(Status status) {
  if (!status) throw std::runtime_error(status.error().message);
}

struct TinyModel {
  std::unique_ptr<Backend> backend;
  ModelFile file;
  std::unique_ptr<Gpt> gpt;

  static TinyModel open(const std::string& folder, std::vector<int> slots,
                        DType weights = DType::kF32, int threads = 2) {
    auto backend = must(open_backend(BackendOptions{"cpu", threads}));
    auto file = must(ModelFile::open(folder));
    GptOptions options;
    options.weights = weights;
    options.slot_layers = std::move(slots);
    auto gpt = must(Gpt::load(file, *backend, std::move(options)));
    return {std::move(backend), std::move(file), std::move(gpt)};
  }
};

inline std::string folder_of(const Fixture& fixture) {
  return fixture_dir() + "/" + fixture.meta("model_folder");
}

// Token b is byte b, in GPT-2's byte alphabet; no merges.
inline Tokenizer byte_tokenizer() {
  TokenizerSpec spec;
  int extra = 0;
  for (int b = 0; b < 256; ++b) {
    const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    const int point = printable ? b : 256 + extra++;
    std::string utf8;
    if (point < 0x80) {
      utf8 = static_cast<char>(point);
    } else {
      utf8 = {static_cast<char>(0xc0 | (point >> 6)), static_cast<char>(0x80 | (point & 0x3f))};
    }
    spec.tokens.push_back(utf8);
    spec.types.push_back(TokenType::kNormal);
  }
  return must(Tokenizer::make(spec));
}

}  // namespace memslot::testing_support
