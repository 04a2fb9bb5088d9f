#include "generator/model/kv_cache.h"

#include <algorithm>

namespace memslot {
namespace {

constexpr std::int64_t kBlock = 256;  // positions by which a cache grows at least

// Copies `rows` rows of `cols` elements from one device place to another.
void copy_rows(Backend& backend, const void* from, void* to, DType dtype, std::int64_t from_row,
               std::int64_t to_row, std::int64_t rows, std::int64_t cols) {
  const ConstMatrix source{from, dtype, from_row + rows, cols, cols};
  const Matrix target{to, dtype, to_row + rows, cols, cols};
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
  cache.keys_.resize(static_cast<std::size_t>(config.layers));
  cache.values_.resize(static_cast<std::size_t>(config.layers));
  cache.residuals_.resize(slot_layers.size());
  MEMSLOT_TRY(cache.reserve(std::clamp<std::int64_t>(initial_capacity, 1, config.context)));
  return cache;
}

std::size_t KvCache::bytes() const {
  std::size_t total = 0;
  for (const auto* buffers : {&keys_, &values_, &residuals_}) {
    for (const auto& buffer : *buffers) total += buffer.bytes();
  }
  return total;
}

KvView KvCache::layer(int layer) const {
  const auto l = static_cast<std::size_t>(layer);
  return {keys_.at(l).data(), values_.at(l).data(), dtype_, capacity_};
}

Matrix KvCache::slot_residual(std::size_t slot) const {
  return {residuals_.at(slot).data(), DType::kF32, capacity_, d_model_, d_model_};
}

Status KvCache::reserve(std::int64_t positions) {
  if (positions > context_)
    return invalid("positions", "at most " + std::to_string(context_), positions);
  if (positions <= capacity_) return ok();
  const std::int64_t rounded = (positions + kBlock - 1) / kBlock * kBlock;
  const std::int64_t grown = std::min(context_, std::max(rounded, capacity_ + capacity_ / 2));
  // All the new memory first: if some is missing, the cache stays as it was.
  const auto kv_bytes =
      static_cast<std::size_t>(kv_heads_ * grown * head_dim_) * dtype_size(dtype_);
  const auto residual_bytes = static_cast<std::size_t>(grown * d_model_) * sizeof(float);
  std::vector<Buffer> keys, values, residuals;
  for (int l = 0; l < layers_; ++l) {
    MEMSLOT_TRY(auto key, backend_->alloc(kv_bytes));
    MEMSLOT_TRY(auto value, backend_->alloc(kv_bytes));
    keys.push_back(std::move(key));
    values.push_back(std::move(value));
  }
  for (std::size_t s = 0; s < residuals_.size(); ++s) {
    MEMSLOT_TRY(auto residual, backend_->alloc(residual_bytes));
    residuals.push_back(std::move(residual));
  }
  if (length_ > 0) {
    for (std::size_t l = 0; l < keys.size(); ++l) {
      for (std::int64_t g = 0; g < kv_heads_; ++g) {
        copy_rows(*backend_, keys_[l].data(), keys[l].data(), dtype_, g * capacity_, g * grown,
                  length_, head_dim_);
        copy_rows(*backend_, values_[l].data(), values[l].data(), dtype_, g * capacity_, g * grown,
                  length_, head_dim_);
      }
    }
    for (std::size_t s = 0; s < residuals.size(); ++s) {
      copy_rows(*backend_, residuals_[s].data(), residuals[s].data(), DType::kF32, 0, 0, length_,
                d_model_);
    }
    backend_->synchronize();  // the old buffers are freed below
  }
  keys_ = std::move(keys);
  values_ = std::move(values);
  residuals_ = std::move(residuals);
  capacity_ = grown;
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
  MEMSLOT_CHECK(count > 0 && length_ + count <= capacity_);
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
