#pragma once
// All numerical work of the generator. One implementation per kind of device.
//
// Bits:    every forward operation is row-invariant where info().row_invariant says so: a row's
// bits
//          do not depend on how many rows are computed with it, on its position or on its
//          neighbours.
// Order:   operations run in the order of the calls on one compute stream. upload() may use a
// second,
//          staging stream; record()/wait() order the two. The CPU backend runs everything in place.
// Types:   activations are f32, or bf16 where an operation says so; accumulation is always f32.
// Errors:  shapes are the caller's promise (MEMSLOT_CHECK); memory that cannot be had is kNoSpace.
// Threads: one thread at a time, but alloc(), upload() and pack() from any (staging a memory while
//          the model runs).
//
// Letters: M rows, T tokens, D model width, F MLP width, H heads, G key/value heads, d head width,
//          V vocabulary, K inputs and N outputs of a linear map.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "generator/backend/buffer.h"
#include "shared/base/error.h"
#include "shared/tensor/tensor.h"

namespace memslot {

struct BackendInfo {
  std::string name;     // "cpu"
  std::string device;   // processor or card
  std::string isa;      // what the matrix library dispatches to, e.g. "avx512_core_bf16"
  std::string library;  // e.g. "oneDNN 2.6.3"
  int threads = 1;
  bool bf16 = false;  // bf16 weights run natively
  bool row_invariant = false;
};

// A linear map's weights in the device's own layout. Immutable; share freely.
class PackedWeight {
 public:
  virtual ~PackedWeight() = default;
  virtual std::int64_t inputs() const = 0;   // K
  virtual std::int64_t outputs() const = 0;  // N
  virtual DType dtype() const = 0;
  virtual std::size_t bytes() const = 0;  // that it holds itself: 0 for a slice that shares
  virtual const void* data() const = 0;   // device memory; bytes() of it, for digests
};

enum class Transpose : bool { kNo = false, kYes = true };

using Event = std::uint64_t;

// Keys and values of one layer and one sequence: for kv head g and position p, d values at
// data + (g * capacity + p) * d. K is stored after rotation.
struct KvView {
  void* keys = nullptr;
  void* values = nullptr;
  DType dtype = DType::kF32;
  std::int64_t capacity = 0;  // positions
};

// Rows [row, row + count) of the batch belong to one sequence, at positions [position, + count).
struct AttentionSpan {
  std::int64_t row = 0;
  std::int64_t count = 0;
  std::int64_t position = 0;
  KvView kv;
};

struct AttentionShape {
  int heads = 0;     // H
  int kv_heads = 0;  // G, divides H
  int head_dim = 0;  // d
};

// What an online softmax has seen of a row so far: m = max x, Z = sum e^(x - m).
// Milakov & Gimelshein 2018, arXiv:1805.02867.
struct SoftmaxRow {
  float highest = -std::numeric_limits<float>::infinity();  // m
  float sum = 0;                                            // Z
  float weighted = 0;                                       // sum (x - m) e^(x - m)
  float target = 0;                                         // the target's x, once it was met
  float rescale = 0;         // e^(m before the last block - m): for sums over the blocks before
  std::int32_t argmax = -1;  // lowest on ties

  float nll() const { return std::log(sum) - (target - highest); }
  float entropy() const { return std::max(0.0f, std::log(sum) - weighted / sum); }
};

struct AdamWStep {
  float lr = 0, beta1 = 0.9f, beta2 = 0.999f, eps = 1e-8f, weight_decay = 0;
  int step = 1;  // from 1; for the bias corrections
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual const BackendInfo& info() const = 0;

  // --- memory and order ---
  virtual Result<Buffer> alloc(std::size_t bytes) = 0;  // 64-byte aligned, uninitialised
  virtual Status upload(void* to, std::span<const std::byte> from) = 0;
  virtual Status download(std::span<std::byte> to, const void* from) = 0;  // waits
  virtual Event record() = 0;
  virtual void wait(Event event) = 0;
  virtual void synchronize() = 0;
  // Gives back what operations keep between calls to be fast (working space, code for shapes); they
  // make it again. Bits stay. On the compute thread.
  virtual void trim() = 0;
  virtual std::size_t kept_bytes() const = 0;  // working space that trim() gives back

  // --- linear maps: y[M,N] = x[M,K] W^T (+ bias[N]) (+ y) ---
  // `weight` is [N, K] row-major, f32 or bf16; packed as `dtype`. kYes packs W^T, so that linear()
  // then computes x[M,N] W (the gradient with respect to a map's input).
  virtual Result<std::shared_ptr<const PackedWeight>> pack(ConstHostTensor weight, DType dtype,
                                                           Transpose transpose) = 0;
  // The outputs [first, first + count) of a packed map as a map of its own. Shares w's memory,
  // which must outlive it, where the layout allows that; else it is a copy.
  virtual Result<std::shared_ptr<const PackedWeight>> slice_outputs(const PackedWeight& w,
                                                                    std::int64_t first,
                                                                    std::int64_t count) = 0;
  // x, y: f32 or bf16. Accumulate (y += ...) only for f32 y.
  virtual void linear(ConstMatrix x, const PackedWeight& w, Matrix y, const float* bias,
                      bool accumulate) = 0;
  // c[N,K] (+)= a[M,N]^T b[M,K]; the weight gradient of a linear map. c f32.
  virtual void matmul_tn(ConstMatrix a, ConstMatrix b, Matrix c, bool accumulate) = 0;

  // --- forward ---
  // y = table[ids], f32. `table` is the packed [V, D] map (so that an output map which is tied to
  // the embedding is held once).
  virtual void embed(const PackedWeight& table, std::span<const std::int32_t> ids, Matrix y) = 0;
  // y = x / sqrt(mean(x^2) + eps) * weight. Zhang & Sennrich 2019. y f32 or bf16.
  virtual void rms_norm(ConstMatrix x, const float* weight, float eps, Matrix y) = 0;
  // y = (x - mean) / sqrt(var + eps) * weight + bias; biased variance.
  virtual void layer_norm(ConstMatrix x, const float* weight, const float* bias, float eps,
                          Matrix y) = 0;
  // Splits qkv[M, (H + 2G) d] f32: rotates q and k by each row's position (half rotation: element i
  // pairs with i + d/2, angle = position * theta^(-2i/d); theta 0: no rotation), leaves q in place
  // and stores k and v in the spans' caches.
  virtual void rope_store(Matrix qkv, const AttentionShape& shape, float theta,
                          std::span<const AttentionSpan> spans) = 0;
  // Causal attention, scale d^-1/2: y[M, H d] from q in qkv and the caches. y f32 or bf16.
  virtual void attention(ConstMatrix qkv, const AttentionShape& shape,
                         std::span<const AttentionSpan> spans, Matrix y) = 0;
  // y[M,F] = silu(gate_up[:, :F]) * gate_up[:, F:]. y f32 or bf16.
  virtual void silu_mul(ConstMatrix gate_up, Matrix y) = 0;
  // y = gelu_tanh(x).
  virtual void gelu(ConstMatrix x, Matrix y) = 0;
  // y += scale * x, f32.
  virtual void add(ConstMatrix x, float scale, Matrix y) = 0;
  // Copies with conversion between f32 and bf16.
  virtual void copy(ConstMatrix x, Matrix y) = 0;
  // nll[i] = logsumexp(logits[i]) - logits[i, target[i]] where target >= 0 (else 0);
  // entropy[i] = -sum p log p, and argmax[i] (lowest on ties); either may be null. Host arrays.
  virtual void token_loss(ConstMatrix logits, std::span<const std::int32_t> targets, float* nll,
                          float* entropy, std::int32_t* argmax) = 0;
  // The same over columns that come block by block, [first, first + N), from column 0 on: brings
  // `rows` up to date. With e (M, N) f32 or bf16, e = exp(x - m), but 0 at the row's target and in
  // rows without one. e.rows 0: not wanted. Host arrays but for the matrices.
  virtual void softmax_block(ConstMatrix logits, std::int64_t first,
                             std::span<const std::int32_t> targets, std::span<SoftmaxRow> rows,
                             Matrix e) = 0;
  // y_i = a_i y_i + b_i x_i, f32; x.rows 0: y_i = a_i y_i. Host arrays a, b.
  virtual void blend_rows(Matrix y, std::span<const float> a, ConstMatrix x,
                          std::span<const float> b) = 0;

  // --- backward; all f32 unless said otherwise; gradients are written, not added, unless named ---
  virtual void rms_norm_backward(ConstMatrix x, const float* weight, float eps, ConstMatrix dy,
                                 Matrix dx, bool accumulate) = 0;
  virtual void layer_norm_backward(ConstMatrix x, const float* weight, float eps, ConstMatrix dy,
                                   Matrix dx, bool accumulate) = 0;
  // For whole sequences from position 0 (spans with position 0): recomputes the probabilities from
  // qkv (q and k already rotated); dqkv[M, (H + 2G) d] is with respect to rotated q and k. dy f32;
  // or bf16, and then the operands of all products may be rounded to bf16, too.
  virtual void attention_backward(ConstMatrix qkv, const AttentionShape& shape,
                                  std::span<const AttentionSpan> spans, ConstMatrix dy,
                                  Matrix dqkv) = 0;
  // Undoes the rotation in dqkv's q and k parts, in place.
  virtual void rope_backward(Matrix dqkv, const AttentionShape& shape, float theta,
                             std::span<const AttentionSpan> spans) = 0;
  virtual void silu_mul_backward(ConstMatrix gate_up, ConstMatrix dy, Matrix dgate_up) = 0;
  virtual void gelu_backward(ConstMatrix x, ConstMatrix dy, Matrix dx) = 0;
  // Decoupled weight decay, bias-corrected moments. Loshchilov & Hutter 2019. All n f32.
  virtual void adamw(float* weight, const float* gradient, float* m, float* v, std::int64_t n,
                     const AdamWStep& step) = 0;

  // --- test-time kinds ---
  // The delta rule over M tokens in order, per head: u = beta (v - S^T k); S += k u^T; o = S^T (s
  // q), s = K^-1/2. Schlag et al. 2021, arXiv:2102.11174. q, k [M, H K] (k, q already normalised),
  // v, o [M, H V], beta [M, H], state [H][K][V] f32, updated in place.
  virtual void delta_rule(ConstMatrix q, ConstMatrix k, ConstMatrix v, ConstMatrix beta, int heads,
                          float* state, Matrix o) = 0;
  // Depthwise causal convolution over M tokens in order, then SiLU. C channels, width 4:
  //   y[t, c] = silu(sum_j weight[c, j] in[t - 3 + j, c]), where in is `state` continued by x.
  // x, y [M, C] f32; weight, state [C][4] f32; state holds the last 4 inputs, oldest first, and is
  // updated in place.
  virtual void causal_conv_silu(ConstMatrix x, const float* weight, float* state, Matrix y) = 0;
  // y = scale / (1 + exp(-x)), f32.
  virtual void sigmoid(ConstMatrix x, float scale, Matrix y) = 0;
};

}  // namespace memslot
