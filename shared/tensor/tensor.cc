#include "shared/tensor/tensor.h"

namespace memslot {

Shape::Shape(std::initializer_list<std::int64_t> dims) {
  MEMSLOT_CHECK(dims.size() <= kMaxRank);
  for (const auto d : dims) dims_[static_cast<std::size_t>(rank_++)] = d;
}

std::int64_t Shape::elements() const {
  std::int64_t n = 1;
  for (int i = 0; i < rank_; ++i) n *= (*this)[i];
  return n;
}

std::string Shape::text() const {
  std::string out = "[";
  for (int i = 0; i < rank_; ++i) out += (i == 0 ? "" : ", ") + std::to_string((*this)[i]);
  return out + "]";
}

Result<Shape> Shape::make(std::span<const std::int64_t> dims) {
  constexpr std::int64_t kMaxElements = std::int64_t{1} << 40;
  if (dims.size() > kMaxRank) return invalid("tensor rank", "at most 4", dims.size());
  Shape shape;
  std::int64_t product = 1;
  for (const auto d : dims) {
    if (d < 0) return invalid("tensor dimension", "0 or more", d);
    if (d != 0 && product > kMaxElements / d)
      return invalid("tensor elements", "at most 2^40", "more");
    product *= d;
    shape.dims_[static_cast<std::size_t>(shape.rank_++)] = d;
  }
  return shape;
}

std::span<const float> ConstHostTensor::f32() const {
  MEMSLOT_CHECK(dtype == DType::kF32);
  // The bytes came from float storage or an aligned mapping; callers guarantee 4-byte alignment.
  return {reinterpret_cast<const float*>(data), static_cast<std::size_t>(shape.elements())};
}

ConstHostTensor HostTensor::view() const {
  return {DType::kF32, shape, reinterpret_cast<const std::byte*>(values.data())};
}

}  // namespace memslot
