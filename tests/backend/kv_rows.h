#pragma once
// A key/value cache of one layer and one sequence, poisoned with NaN where nothing was stored.
#include <cstring>

#include "tests/backend/device_rows.h"

namespace memslot::testing_support {

class KvRows {
 public:
  KvRows(Backend& backend, const AttentionShape& shape, std::int64_t capacity, DType dtype)
      : capacity_(capacity), dtype_(dtype) {
    const auto bytes =
        static_cast<std::size_t>(shape.kv_heads * capacity * shape.head_dim) * dtype_size(dtype);
    keys_ = backend.alloc(bytes).value();
    values_ = backend.alloc(bytes).value();
    std::memset(keys_.data(), 0xff, keys_.bytes());
    std::memset(values_.data(), 0xff, values_.bytes());
  }
  KvView view() const { return {keys_.data(), values_.data(), dtype_, capacity_}; }

 private:
  std::int64_t capacity_;
  DType dtype_;
  Buffer keys_, values_;
};

}  // namespace memslot::testing_support
