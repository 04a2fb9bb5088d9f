#pragma once
// Shapes, and views of row-major tensors on the host. A view borrows; the owner is named where it
// is made. Device memory has its own type (generator/backend/buffer.h).
//
// Threads: a view is a value; the bytes it shows follow their owner's rules.
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "shared/tensor/dtype.h"

namespace memslot {

// Up to four dimensions, outermost first.
class Shape {
 public:
  static constexpr int kMaxRank = 4;
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims);
  int rank() const { return rank_; }
  std::int64_t operator[](int i) const { return dims_[static_cast<std::size_t>(i)]; }
  std::int64_t elements() const;  // 1 for rank 0
  std::string text() const;       // "[2, 3]"
  friend bool operator==(const Shape&, const Shape&) = default;

  // kInvalidArgument for more than kMaxRank dimensions, a negative one, or a product over 2^40.
  static Result<Shape> make(std::span<const std::int64_t> dims);

 private:
  std::array<std::int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

struct ConstHostTensor {  // borrows
  DType dtype = DType::kF32;
  Shape shape;
  const std::byte* data = nullptr;

  std::size_t bytes() const {
    return static_cast<std::size_t>(shape.elements()) * dtype_size(dtype);
  }
  // REQUIRES: dtype == kF32.
  std::span<const float> f32() const;
};

// Owns a dense row-major f32 tensor.
struct HostTensor {
  Shape shape;
  std::vector<float> values;

  ConstHostTensor view() const;
};

}  // namespace memslot
