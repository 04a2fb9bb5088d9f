#pragma once
// What one task of attention's backward works on: some query blocks of the heads that share a
// key/value head, in one sequence.
#include <cstddef>
#include <cstdint>

namespace memslot::cpu {

struct GradientTask {
  std::size_t count = 0;     // positions of the sequence
  std::size_t group = 0;     // query heads that share the keys; virtual row r = row * group + head
  std::size_t head_dim = 0;  // d
  std::size_t block = 0;     // positions of a query block
  std::size_t part = 0, parts = 0;  // which of the sequence's blocks: see in_part()
  float scale = 0;
  // The sequence's first row, at the group's first query head or at the key/value head.
  const float *query = nullptr, *key = nullptr, *value = nullptr;
  std::size_t stride = 0;
  const void* dy = nullptr;  // f32 or bf16: the type that operands are multiplied in
  std::size_t dy_stride = 0;
  bool bf16 = false, native_bf16 = false;
  float* dquery = nullptr;
  std::size_t dquery_stride = 0;
  // This part's share of the keys' and values' gradients, [d][key_stride].
  float *dkey = nullptr, *dvalue = nullptr;
  std::size_t key_stride = 0;

  std::size_t blocks() const { return (count + block - 1) / block; }
  // Deals the blocks out from the last, the costliest, to and fro, so that parts cost alike.
  bool in_part(std::size_t index) const {
    const std::size_t dealt = blocks() - 1 - index, seat = dealt % parts;
    return part == (dealt / parts % 2 == 0 ? seat : parts - 1 - seat);
  }
};

// The sum of a key/value head's shares, transposed to rows of gradients.
struct GradientSum {
  std::size_t count = 0, head_dim = 0, parts = 0, key_stride = 0;
  float* shares = nullptr;  // [parts][d][key_stride], overwritten
  std::size_t share_stride = 0;
  float* to = nullptr;
  std::size_t to_stride = 0;
};

}  // namespace memslot::cpu
