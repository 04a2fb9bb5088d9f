#pragma once
// Device memory and two-dimensional views of it. On the CPU backend "device" is host memory.
//
// Owner:   Buffer owns and is move-only; Matrix and ConstMatrix borrow.
// Threads: values; the bytes follow the order of the backend's streams.
#include <cstddef>
#include <cstdint>
#include <utility>

#include "shared/tensor/dtype.h"

namespace memslot {

class Buffer {
 public:
  using Free = void (*)(void* data, std::size_t bytes);
  Buffer() = default;
  Buffer(void* data, std::size_t bytes, Free free) : data_(data), bytes_(bytes), free_(free) {}
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer(std::move(other)).swap(*this);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() {
    if (data_ != nullptr) free_(data_, bytes_);
  }

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  explicit operator bool() const { return data_ != nullptr; }

 private:
  void swap(Buffer& other) {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(free_, other.free_);
  }
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  Free free_ = nullptr;
};

// Row-major, `stride` elements from one row to the next (>= cols). dtype f32 or bf16.
struct ConstMatrix {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t stride = 0;

  const float* f32() const { return static_cast<const float*>(data); }
  const std::uint16_t* bf16() const { return static_cast<const std::uint16_t*>(data); }
  ConstMatrix slice_rows(std::int64_t first, std::int64_t count) const;
  ConstMatrix slice_cols(std::int64_t first, std::int64_t count) const;
};

struct Matrix {
  void* data = nullptr;
  DType dtype = DType::kF32;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t stride = 0;

  float* f32() const { return static_cast<float*>(data); }
  std::uint16_t* bf16() const { return static_cast<std::uint16_t*>(data); }
  Matrix slice_rows(std::int64_t first, std::int64_t count) const;
  Matrix slice_cols(std::int64_t first, std::int64_t count) const;
  operator ConstMatrix() const {
    return {data, dtype, rows, cols, stride};
  }  // NOLINT: a view of a view
};

inline ConstMatrix ConstMatrix::slice_rows(std::int64_t first, std::int64_t count) const {
  const auto skip = static_cast<std::size_t>(first * stride) * dtype_size(dtype);
  return {static_cast<const std::byte*>(data) + skip, dtype, count, cols, stride};
}
inline ConstMatrix ConstMatrix::slice_cols(std::int64_t first, std::int64_t count) const {
  const auto skip = static_cast<std::size_t>(first) * dtype_size(dtype);
  return {static_cast<const std::byte*>(data) + skip, dtype, rows, count, stride};
}
inline Matrix Matrix::slice_rows(std::int64_t first, std::int64_t count) const {
  const auto skip = static_cast<std::size_t>(first * stride) * dtype_size(dtype);
  return {static_cast<std::byte*>(data) + skip, dtype, count, cols, stride};
}
inline Matrix Matrix::slice_cols(std::int64_t first, std::int64_t count) const {
  const auto skip = static_cast<std::size_t>(first) * dtype_size(dtype);
  return {static_cast<std::byte*>(data) + skip, dtype, rows, count, stride};
}

}  // namespace memslot
