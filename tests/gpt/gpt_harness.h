#pragma once
// A model on a backend, for tests: opened from a path, run on ids, read back as floats.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "generator/backend/open_backend.h"
#include "generator/model/gpt.h"
#include "tests/support/fixture.h"

namespace memslot::testing_support {

using Ids = std::vector<std::int32_t>;

inline Ids ids_of(const std::vector<std::int64_t>& from) {
  Ids out;
  for (const auto id : from) out.push_back(static_cast<std::int32_t>(id));
  return out;
}

// Device rows that the test owns.
class Rows {
 public:
  Rows(Backend& backend, std::int64_t rows, std::int64_t cols, DType dtype = DType::kF32)
      : backend_(backend),
        buffer_(backend.alloc(static_cast<std::size_t>(rows * cols) * dtype_size(dtype)).value()),
        matrix_{buffer_.data(), dtype, rows, cols, cols} {}
  const Matrix& matrix() const { return matrix_; }
  std::vector<float> floats() const {
    std::vector<float> out(static_cast<std::size_t>(matrix_.rows * matrix_.cols));
    EXPECT_TRUE(
        backend_.download(std::as_writable_bytes(std::span(out)), matrix_.data).has_value());
    return out;
  }

 private:
  Backend& backend_;
  Buffer buffer_;
  Matrix matrix_;
};

struct GptHarness {
  std::unique_ptr<Backend> backend;
  std::unique_ptr<ModelFile> file;
  std::unique_ptr<Gpt> gpt;

  static GptHarness open(const std::string& path, GptOptions options, int threads = 0) {
    GptHarness out;
    out.backend = open_backend({.name = "cpu", .threads = threads}).value();
    auto file = ModelFile::open(path);
    if (!file.has_value()) throw std::runtime_error(file.error().message);
    out.file = std::make_unique<ModelFile>(std::move(file.value()));
    auto gpt = Gpt::load(*out.file, *out.backend, std::move(options));
    if (!gpt.has_value()) throw std::runtime_error(gpt.error().message);
    out.gpt = std::move(gpt.value());
    return out;
  }

  KvCache kv(std::int64_t capacity = 16) const { return gpt->make_kv(capacity).value(); }

  // Appends `ids` to `kv`; the final-norm hidden states of all of them.
  std::vector<float> hidden(const Ids& ids, KvCache& kv, const SlotForward* slots = nullptr,
                            bool last_only = false) const {
    Sequence sequence{ids, &kv, slots, {}};
    Rows rows(*backend, last_only ? 1 : std::ssize(ids), gpt->config().d_model);
    const auto status = gpt->forward({&sequence, 1}, rows.matrix(), last_only);
    EXPECT_TRUE(status.has_value()) << status.error().message;
    return rows.floats();
  }

  std::vector<float> logits(const std::vector<float>& hidden) const {
    const std::int64_t d = gpt->config().d_model, rows = std::ssize(hidden) / d;
    Rows in(*backend, rows, d), out(*backend, rows, gpt->config().vocab);
    EXPECT_TRUE(backend->upload(in.matrix().data, std::as_bytes(std::span(hidden))).has_value());
    gpt->logits(in.matrix(), out.matrix());
    return out.floats();
  }

  // nll[i] of token i + 1.
  std::vector<float> nll(const std::vector<float>& logits, const Ids& ids) const {
    const std::int64_t vocab = gpt->config().vocab, rows = std::ssize(ids);
    Rows in(*backend, rows, vocab);
    EXPECT_TRUE(backend->upload(in.matrix().data, std::as_bytes(std::span(logits))).has_value());
    Ids targets(ids.begin() + 1, ids.end());
    targets.push_back(-1);
    std::vector<float> out(ids.size());
    backend->token_loss(in.matrix(), targets, out.data(), nullptr, nullptr);
    out.pop_back();
    return out;
  }

  // The most likely continuation, one token at a time on top of `ids`.
  Ids greedy(const Ids& ids, std::size_t count) const {
    auto cache = kv();
    Ids out, next = ids;
    while (out.size() < count) {
      const auto logits_now = logits(hidden(next, cache, nullptr, /*last_only=*/true));
      const auto best = std::max_element(logits_now.begin(), logits_now.end()) - logits_now.begin();
      next = {static_cast<std::int32_t>(best)};
      out.push_back(next[0]);
    }
    return out;
  }
};

inline bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

// Tokens spread over the vocabulary, the same for every run.
inline Ids some_ids(std::size_t count, int vocab, std::uint32_t seed = 1) {
  Ids out;
  std::uint32_t state = seed * 2654435761U + 1;
  for (std::size_t i = 0; i < count; ++i) {
    state = state * 1664525U + 1013904223U;
    out.push_back(static_cast<std::int32_t>((state >> 8) % static_cast<std::uint32_t>(vocab)));
  }
  return out;
}

}  // namespace memslot::testing_support
