#pragma once
// Working memory of one slot: numbered places that grow to the largest matrix asked for and stay.
//
// Owner:   owns device buffers; the matrices borrow until the place is asked for again.
// Threads: one at a time.
#include <array>
#include <cstddef>

#include "generator/backend/backend.h"

namespace memslot {

// Rows a slot works on at once, so that its working memory stays small while a prompt is read.
inline constexpr std::int64_t kSlotRows = 128;

class SlotScratch {
 public:
  explicit SlotScratch(Backend& backend) : backend_(&backend) {}

  // Uninitialised, rows packed densely. REQUIRES: place < kPlaces. Out of memory ends the process:
  // the sizes are a few megabytes at most.
  Matrix take(std::size_t place, DType dtype, std::int64_t rows, std::int64_t cols);
  std::size_t bytes() const;

  static constexpr std::size_t kPlaces = 8;

 private:
  Backend* backend_;
  std::array<Buffer, kPlaces> buffers_;
};

}  // namespace memslot
