#pragma once
// oneDNN matrix products, created once per shape and then found again in our own table of those
// that ran last. Making one takes 0.12 ms and it holds 90 kB of code (measured): a prompt or a
// batch of a new length brings a dozen, so the table is small.
//
//   y[M,N] (+)= x[M,K] w[K,N] (+ bias[N])
//
// Every primitive has a fixed M: with a run-time M oneDNN chooses code whose bits depend on M.
// Weights are either packed (the layout oneDNN likes best for K, N and dtype, pack_layout()) or any
// strided matrix.
//
// Owner:   the engine and the table; memory stays the caller's.
// Threads: run() from one thread at a time; pack_layout() and the engine from any.
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>

#include <oneapi/dnnl/dnnl.hpp>

#include "shared/tensor/dtype.h"

namespace memslot::cpu {

struct MatmulShape {
  std::int64_t m = 0, n = 0, k = 0;
  DType x = DType::kF32, w = DType::kF32, y = DType::kF32;
  // Elements from one row / column of x to the next; x_col 1 for row-major, x_row 1 for transposed.
  std::int64_t x_row = 0, x_col = 1;
  // The same for w[K,N]; both 0: packed.
  std::int64_t w_row = 0, w_col = 0;
  std::int64_t y_row = 0;
  bool bias = false;        // f32 [N]
  bool accumulate = false;  // y += ...; y f32

  friend bool operator==(const MatmulShape&, const MatmulShape&) = default;
};

struct MatmulShapeHash {
  std::size_t operator()(const MatmulShape& shape) const;
};

dnnl::memory::data_type dnnl_dtype(DType dtype);

class MatmulCache {
 public:
  explicit MatmulCache(int threads);
  ~MatmulCache();

  static constexpr std::size_t kMaxEntries = 160;  // a learning step beside decoding uses 60

  const dnnl::engine& engine() const { return engine_; }
  void clear();

  // The packed layout of w[K,N]; the same for every M.
  dnnl::memory::desc pack_layout(std::int64_t k, std::int64_t n, DType dtype);

  // `w`: the packed weights' memory, or null where `plain_w` is given. Waits for the result.
  void run(const MatmulShape& shape, const void* x, const dnnl::memory* w, const void* plain_w,
           void* y, const float* bias);

  // Name of the code that oneDNN chose for this shape, e.g. "brg:avx512_core_bf16"; "" if none.
  std::string implementation(const MatmulShape& shape);

 private:
  struct Entry;
  Entry& find(const MatmulShape& shape);
  std::unique_ptr<Entry> make(const MatmulShape& shape);
  dnnl::matmul::primitive_desc describe(const MatmulShape& shape);

  int threads_;
  dnnl::engine engine_;
  dnnl::stream stream_;
  std::unordered_map<MatmulShape, std::unique_ptr<Entry>, MatmulShapeHash> entries_;
  std::uint64_t calls_ = 0;
  std::mutex layouts_mutex_;
  std::unordered_map<MatmulShape, dnnl::memory::desc, MatmulShapeHash> layouts_;  // guarded
};

}  // namespace memslot::cpu
