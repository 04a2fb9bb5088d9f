#pragma once
// What one sequence keeps between forward calls: keys and values of every layer, the residual
// stream at every slot layer (from which a swap is recomputed), and which memories every position
// was computed with.
//
// Owner:   owns its device buffers; grows in blocks up to the model's context.
// Threads: one session's strand.
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "generator/backend/backend.h"
#include "generator/model/config.h"

namespace memslot {

// Positions [first, first + count) were computed with these memories, one digest per slot
// ("" = base; a payload's SHA-256 hex; for a stateful kind its state's token).
struct KvSpan {
  std::int64_t first = 0;
  std::int64_t count = 0;
  std::vector<std::string> memories;
  friend bool operator==(const KvSpan&, const KvSpan&) = default;
};

class KvCache {
 public:
  // `slot_layers` ascending. kv dtype f32 or bf16.
  static Result<KvCache> make(Backend& backend, const ModelConfig& config,
                              std::span<const int> slot_layers, DType kv_dtype,
                              std::int64_t initial_capacity);
  KvCache(KvCache&&) noexcept = default;
  KvCache& operator=(KvCache&&) noexcept = default;

  std::int64_t length() const { return length_; }
  std::int64_t capacity() const { return rows_.capacity; }
  std::size_t bytes() const;
  KvView layer(int layer) const;
  // The residual stream before the slot's MLP norm, f32 [capacity, D].
  Matrix slot_residual(std::size_t slot) const;
  const std::vector<KvSpan>& spans() const { return spans_; }

  // Room for `positions` in all. kNoSpace; kInvalidArgument beyond the context.
  Status reserve(std::int64_t positions);
  // Holds what `other` holds, in buffers of its own; the capacities may differ. kNoSpace, and then
  // it is as it was. REQUIRES: made for the same model and dtype.
  Status copy_from(const KvCache& other);
  // Drops everything from `position` on.
  void truncate(std::int64_t position);
  // Called by Gpt after a forward of `count` new positions, or of a recompute over all of them.
  void append_span(std::int64_t count, std::vector<std::string> memories);
  void relabel_all(std::vector<std::string> memories);

 private:
  struct Rows {
    std::int64_t capacity = 0;
    std::vector<Buffer> keys, values;  // per layer
    std::vector<Buffer> residuals;     // per slot
  };
  KvCache() = default;
  Result<Rows> alloc_rows(std::int64_t capacity) const;
  // The first `count` positions; waits until they are there.
  void copy_rows(const Rows& from, const Rows& to, std::int64_t count) const;

  Backend* backend_ = nullptr;
  std::int64_t length_ = 0, context_ = 0;
  int layers_ = 0, kv_heads_ = 0, head_dim_ = 0, d_model_ = 0;
  std::size_t slots_ = 0;
  DType dtype_ = DType::kF32;
  Rows rows_;
  std::vector<KvSpan> spans_;
};

}  // namespace memslot
