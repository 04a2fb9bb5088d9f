#pragma once
// The CPU backend: oneDNN for matrix products, Highway kernels for the rest, OpenMP threads.
//
// One operation per file. The instruction set of the matrix products is what oneDNN dispatches to,
// so DNNL_MAX_CPU_ISA in the environment steers it, and with it what info() claims:
//   - bf16: only where oneDNN runs bf16 natively (avx512_core_bf16 and above);
//   - row_invariant: only where every shape tried at open() runs oneDNN's "brg" code, which holds
//     it; on AVX2 it is false. All other operations are row-invariant on every instruction set.
//
// Threads: as Backend says. Every operation sets the calling thread's OpenMP maximum to
//          info().threads where it enters oneDNN (libtorch in the same process may have lowered
//          it).
#include <array>
#include <memory>

#include "generator/backend/backend.h"
#include "generator/cpu/matmul_cache.h"
#include "generator/cpu/parallel.h"
#include "generator/cpu/rope_table.h"

namespace memslot {

class CpuBackend final : public Backend {
 public:
  // threads 0: as many as the machine has cores. kInvalidArgument: negative or above 1024.
  static Result<std::unique_ptr<CpuBackend>> open(int threads);
  ~CpuBackend() override;

  const BackendInfo& info() const override { return info_; }

  Result<Buffer> alloc(std::size_t bytes) override;
  Status upload(void* to, std::span<const std::byte> from) override;
  Status download(std::span<std::byte> to, const void* from) override;
  Event record() override;
  void wait(Event event) override;
  void synchronize() override;
  void trim() override;
  std::size_t kept_bytes() const override;

  Result<std::shared_ptr<const PackedWeight>> pack(ConstHostTensor weight, DType dtype,
                                                   Transpose transpose) override;
  Result<std::shared_ptr<const PackedWeight>> slice_outputs(const PackedWeight& w,
                                                            std::int64_t first,
                                                            std::int64_t count) override;
  void linear(ConstMatrix x, const PackedWeight& w, Matrix y, const float* bias,
              bool accumulate) override;
  void matmul_tn(ConstMatrix a, ConstMatrix b, Matrix c, bool accumulate) override;

  void embed(const PackedWeight& table, std::span<const std::int32_t> ids, Matrix y) override;
  void rms_norm(ConstMatrix x, const float* weight, float eps, Matrix y) override;
  void layer_norm(ConstMatrix x, const float* weight, const float* bias, float eps,
                  Matrix y) override;
  void rope_store(Matrix qkv, const AttentionShape& shape, float theta,
                  std::span<const AttentionSpan> spans) override;
  void attention(ConstMatrix qkv, const AttentionShape& shape, std::span<const AttentionSpan> spans,
                 Matrix y) override;
  void silu_mul(ConstMatrix gate_up, Matrix y) override;
  void gelu(ConstMatrix x, Matrix y) override;
  void add(ConstMatrix x, float scale, Matrix y) override;
  void copy(ConstMatrix x, Matrix y) override;
  void token_loss(ConstMatrix logits, std::span<const std::int32_t> targets, float* nll,
                  float* entropy, std::int32_t* argmax) override;
  void softmax_block(ConstMatrix logits, std::int64_t first, std::span<const std::int32_t> targets,
                     std::span<SoftmaxRow> state, Matrix e) override;
  void blend_rows(Matrix y, std::span<const float> a, ConstMatrix x,
                  std::span<const float> b) override;

  void rms_norm_backward(ConstMatrix x, const float* weight, float eps, ConstMatrix dy, Matrix dx,
                         bool accumulate) override;
  void layer_norm_backward(ConstMatrix x, const float* weight, float eps, ConstMatrix dy, Matrix dx,
                           bool accumulate) override;
  void attention_backward(ConstMatrix qkv, const AttentionShape& shape,
                          std::span<const AttentionSpan> spans, ConstMatrix dy,
                          Matrix dqkv) override;
  void rope_backward(Matrix dqkv, const AttentionShape& shape, float theta,
                     std::span<const AttentionSpan> spans) override;
  void silu_mul_backward(ConstMatrix gate_up, ConstMatrix dy, Matrix dgate_up) override;
  void gelu_backward(ConstMatrix x, ConstMatrix dy, Matrix dx) override;
  void adamw(float* weight, const float* gradient, float* m, float* v, std::int64_t n,
             const AdamWStep& step) override;
  void delta_rule(ConstMatrix q, ConstMatrix k, ConstMatrix v, ConstMatrix beta, int heads,
                  float* state, Matrix o) override;
  void causal_conv_silu(ConstMatrix x, const float* weight, float* state, Matrix y) override;
  void sigmoid(ConstMatrix x, float scale, Matrix y) override;

 private:
  explicit CpuBackend(int threads);
  void probe();  // fills info_ from what oneDNN dispatches to
  // `plain` is w[K,N] in any strides.
  Result<std::shared_ptr<const PackedWeight>> packed(dnnl::memory plain, std::int64_t k,
                                                     std::int64_t n, DType dtype);

  // fn(first, last) over rows that cost about `cost` element operations each.
  template <class Fn>
  void rows(std::int64_t count, std::int64_t cost, const Fn& fn) const {
    cpu::parallel_rows(info_.threads, count, cpu::row_grain(cost), fn);
  }

  // Rows of working space, kept between calls. `which`: 0 and 1 for conversions, 2 for sums.
  Matrix scratch(std::size_t which, DType dtype, std::int64_t row_count, std::int64_t cols);

  BackendInfo info_;
  std::array<Buffer, 3> scratch_;
  cpu::MatmulCache matmul_;
  cpu::RopeTable rope_;
  Event events_ = 0;
};

}  // namespace memslot
