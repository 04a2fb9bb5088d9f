#include "generator/slot/scratch.h"

namespace memslot {

Matrix SlotScratch::take(std::size_t place, DType dtype, std::int64_t rows, std::int64_t cols) {
  Buffer& buffer = buffers_.at(place);
  const std::size_t bytes = static_cast<std::size_t>(rows * cols) * dtype_size(dtype);
  if (buffer.bytes() < bytes) {
    auto grown = backend_->alloc(bytes);
    MEMSLOT_CHECK(grown.has_value());
    buffer = std::move(grown).value();
  }
  return {buffer.data(), dtype, rows, cols, cols};
}

std::size_t SlotScratch::bytes() const {
  std::size_t sum = 0;
  for (const Buffer& buffer : buffers_) sum += buffer.bytes();
  return sum;
}

}  // namespace memslot
