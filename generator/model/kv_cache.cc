#include "generator/model/kv_cache.h"

#include <algorithm>

namespace memslot {
namespace {

constexpr std::int64_t kBlock = 256;  // positions by which a cache grows at least

// Copies `rows` rows of `cols` elements from one device place to another.
void copy_block(Backend& backend, const Buffer& from, const Buffer& to, DType dtype,
                std::int64_t from_row, std::int64_t to_row, std::int64_t rows, std::int64_t cols) {
  const ConstMatrix source{from.data(), dtype, from_row + rows, cols, cols};
  const Matrix target{to.data(), dtype, to_row + rows, cols, cols};
  backend.copy(source.slice_rows(from_row, rows), target.slice_rows(to_row, rows));
}

}  // namespace

Result<KvCache> KvCache::make(Backend& backend, const ModelConfig& config,
                              std::span<const int> slot_layers, DType kv_dtype,
                              std::int64_t initial_capacity) {
  KvCache cache;
  cache.backend_ = &backend;
  cache.context_ = config.context;
  cache.layers_ = config.layers;
  cache.kv_heads_ = config.kv_heads;
  cache.head_dim_ = config.head_dim;
  cache.d_model_ = config.d_model;
  cache.dtype_ = kv_dtype;
  cache.slots_ = slot_layers.size();
  MEMSLOT_TRY(cache.reserve(std::clamp<std::int64_t>(initial_capacity, 1, config.context)));
  return cache;
}

std::size_t KvCache::bytes() const {
  std::size_t total = 0;
  for (const auto* buffers : {&rows_.keys, &rows_.values, &rows_.residuals}) {
    for (const auto& buffer : *buffers) total += buffer.bytes();
  }
  return total;
}

KvView KvCache::layer(int layer) const {
  const auto l = static_cast<std::size_t>(layer);
  return {rows_.keys.at(l).data(), rows_.values.at(l).data(), dtype_, rows_.capacity};
}

Matrix KvCache::slot_residual(std::size_t slot) const {
  return {rows_.residuals.at(slot).data(), DType::kF32, rows_.capacity, d_model_, d_model_};
}

Result<KvCache::Rows> KvCache::alloc_rows(std::int64_t capacity) const {
  const auto kv_bytes =
      static_cast<std::size_t>(kv_heads_ * capacity * head_dim_) * dtype_size(dtype_);
  const auto residual_bytes = static_cast<std::size_t>(capacity * d_model_) * sizeof(float);
  Rows out{capacity, {}, {}, {}};
  for (int l = 0; l < layers_; ++l) {
    MEMSLOT_TRY(auto key, backend_->alloc(kv_bytes));
    MEMSLOT_TRY(auto value, backend_->alloc(kv_bytes));
    out.keys.push_back(std::move(key));
    out.values.push_back(std::move(value));
  }
  for (std::size_t s = 0; s < slots_; ++s) {
    MEMSLOT_TRY(auto residual, backend_->alloc(residual_bytes));
    out.residuals.push_back(std::move(residual));
  }
  return out;
}

void KvCache::copy_rows(const Rows& from, const Rows& to, std::int64_t count) const {
  if (count == 0) return;
  for (std::size_t l = 0; l < from.keys.size(); ++l) {
    for (std::int64_t g = 0; g < kv_heads_; ++g) {
      const std::int64_t first = g * from.capacity, target = g * to.capacity;
      copy_block(*backend_, from.keys[l], to.keys[l], dtype_, first, target, count, head_dim_);
      copy_block(*backend_, from.values[l], to.values[l], dtype_, first, target, count, head_dim_);
    }
  }
  for (std::size_t s = 0; s < slots_; ++s) {
    copy_block(*backend_, from.residuals[s], to.residuals[s], DType::kF32, 0, 0, count, d_model_);
  }
  backend_->synchronize();  // `from` may be freed next
}

Status KvCache::reserve(std::int64_t positions) {
  if (positions > context_)
    return invalid("positions", "at most " + std::to_string(context_), positions);
  if (positions <= capacity()) return ok();
  const std::int64_t rounded = (positions + kBlock - 1) / kBlock * kBlock;
  const std::int64_t grown = std::min(context_, std::max(rounded, capacity() + capacity() / 2));
  // All the new memory first: if some is missing, the cache stays as it was.
  MEMSLOT_TRY(Rows rows, alloc_rows(grown));
  copy_rows(rows_, rows, length_);
  rows_ = std::move(rows);
  return ok();
}

Status KvCache::copy_from(const KvCache& other) {
  MEMSLOT_CHECK(layers_ == other.layers_ && kv_heads_ == other.kv_heads_ &&
                head_dim_ == other.head_dim_ && d_model_ == other.d_model_ &&
                slots_ == other.slots_ && dtype_ == other.dtype_);
  MEMSLOT_TRY(reserve(other.length_));
  copy_rows(other.rows_, rows_, other.length_);
  length_ = other.length_;
  spans_ = other.spans_;
  return ok();
}

void KvCache::truncate(std::int64_t position) {
  MEMSLOT_CHECK(position >= 0 && position <= length_);
  length_ = position;
  while (!spans_.empty() && spans_.back().first >= position) spans_.pop_back();
  if (!spans_.empty())
    spans_.back().count = std::min(spans_.back().count, position - spans_.back().first);
}

void KvCache::append_span(std::int64_t count, std::vector<std::string> memories) {
  MEMSLOT_CHECK(count > 0 && length_ + count <= capacity());
  if (!spans_.empty() && spans_.back().memories == memories) {
    spans_.back().count += count;
  } else {
    spans_.push_back({length_, count, std::move(memories)});
  }
  length_ += count;
}

void KvCache::relabel_all(std::vector<std::string> memories) {
  spans_.clear();
  if (length_ > 0) spans_.push_back({0, length_, std::move(memories)});
}

}  // namespace memslot
