#pragma once
// Numbered device matrices of a learner, sized once per job and counted.
//
// Owner:   owns device buffers; matrices borrow until reserve() of the same place grows it.
// Threads: one at a time.
#include <cstddef>
#include <vector>

#include "generator/backend/backend.h"

namespace memslot {

class Workspace {
 public:
  explicit Workspace(Backend& backend) : backend_(&backend) {}

  // Room for `bytes` at `place`; contents are lost if it grows. kNoSpace.
  Status reserve(std::size_t place, std::size_t bytes) {
    if (place >= buffers_.size()) buffers_.resize(place + 1);
    if (buffers_[place].bytes() >= bytes) return ok();
    buffers_[place] = Buffer{};
    MEMSLOT_TRY(buffers_[place], backend_->alloc(bytes));
    return ok();
  }
  Status reserve(std::size_t place, DType dtype, std::int64_t rows, std::int64_t cols) {
    return reserve(place, static_cast<std::size_t>(rows * cols) * dtype_size(dtype));
  }
  // REQUIRES: reserved to at least this size.
  Matrix matrix(std::size_t place, DType dtype, std::int64_t rows, std::int64_t cols) const {
    MEMSLOT_CHECK(static_cast<std::size_t>(rows * cols) * dtype_size(dtype) <=
                  buffers_.at(place).bytes());
    return {buffers_[place].data(), dtype, rows, cols, cols};
  }
  void* data(std::size_t place) const { return buffers_.at(place).data(); }
  std::size_t bytes() const {
    std::size_t sum = 0;
    for (const Buffer& buffer : buffers_) sum += buffer.bytes();
    return sum;
  }

 private:
  Backend* backend_;
  std::vector<Buffer> buffers_;
};

}  // namespace memslot
