#pragma once
// A Backend that passes every call on and adds up the time of each operation: where a forward pass
// spends its time. For measuring only; the clock costs about 30 ns a call.
#include <ctime>
#include <map>
#include <string>

#include "generator/backend/backend.h"

namespace memslot::bench {

// Seconds of the wall clock; or of the processor, for one thread on a machine with other work.
inline double seconds_now(bool processor) {
  timespec time{};
  clock_gettime(processor ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

class TimingBackend final : public Backend {
 public:
  TimingBackend(Backend& inner, bool processor_time) : inner_(inner), processor_(processor_time) {}
  const std::map<std::string, double>& seconds() const { return seconds_; }
  void reset() { seconds_.clear(); }

  const BackendInfo& info() const override { return inner_.info(); }
  Result<Buffer> alloc(std::size_t bytes) override { return inner_.alloc(bytes); }
  Status upload(void* to, std::span<const std::byte> from) override {
    return inner_.upload(to, from);
  }
  Status download(std::span<std::byte> to, const void* from) override {
    return inner_.download(to, from);
  }
  Event record() override { return inner_.record(); }
  void wait(Event event) override { inner_.wait(event); }
  void synchronize() override { inner_.synchronize(); }
  void trim() override { inner_.trim(); }
  std::size_t kept_bytes() const override { return inner_.kept_bytes(); }
  Result<std::shared_ptr<const PackedWeight>> pack(ConstHostTensor weight, DType dtype,
                                                   Transpose transpose) override {
    return inner_.pack(weight, dtype, transpose);
  }
  Result<std::shared_ptr<const PackedWeight>> slice_outputs(const PackedWeight& w,
                                                            std::int64_t first,
                                                            std::int64_t count) override {
    return inner_.slice_outputs(w, first, count);
  }
  void linear(ConstMatrix x, const PackedWeight& w, Matrix y, const float* bias,
              bool accumulate) override {
    const auto name = "linear " + std::to_string(w.inputs()) + "x" + std::to_string(w.outputs());
    timed(name, [&] { inner_.linear(x, w, y, bias, accumulate); });
  }
  void matmul_tn(ConstMatrix a, ConstMatrix b, Matrix c, bool accumulate) override {
    timed("matmul_tn", [&] { inner_.matmul_tn(a, b, c, accumulate); });
  }
  void embed(const PackedWeight& table, std::span<const std::int32_t> ids, Matrix y) override {
    timed("embed", [&] { inner_.embed(table, ids, y); });
  }
  void rms_norm(ConstMatrix x, const float* weight, float eps, Matrix y) override {
    timed("rms_norm", [&] { inner_.rms_norm(x, weight, eps, y); });
  }
  void layer_norm(ConstMatrix x, const float* weight, const float* bias, float eps,
                  Matrix y) override {
    timed("layer_norm", [&] { inner_.layer_norm(x, weight, bias, eps, y); });
  }
  void rope_store(Matrix qkv, const AttentionShape& shape, float theta,
                  std::span<const AttentionSpan> spans) override {
    timed("rope_store", [&] { inner_.rope_store(qkv, shape, theta, spans); });
  }
  void attention(ConstMatrix qkv, const AttentionShape& shape, std::span<const AttentionSpan> spans,
                 Matrix y) override {
    timed("attention", [&] { inner_.attention(qkv, shape, spans, y); });
  }
  void silu_mul(ConstMatrix gate_up, Matrix y) override {
    timed("silu_mul", [&] { inner_.silu_mul(gate_up, y); });
  }
  void gelu(ConstMatrix x, Matrix y) override {
    timed("gelu", [&] { inner_.gelu(x, y); });
  }
  void add(ConstMatrix x, float scale, Matrix y) override {
    timed("add", [&] { inner_.add(x, scale, y); });
  }
  void copy(ConstMatrix x, Matrix y) override {
    timed("copy", [&] { inner_.copy(x, y); });
  }
  void token_loss(ConstMatrix logits, std::span<const std::int32_t> targets, float* nll,
                  float* entropy, std::int32_t* argmax) override {
    timed("token_loss", [&] { inner_.token_loss(logits, targets, nll, entropy, argmax); });
  }
  void softmax_block(ConstMatrix logits, std::int64_t first, std::span<const std::int32_t> targets,
                     std::span<SoftmaxRow> rows, Matrix e) override {
    timed("softmax_block", [&] { inner_.softmax_block(logits, first, targets, rows, e); });
  }
  void blend_rows(Matrix y, std::span<const float> a, ConstMatrix x,
                  std::span<const float> b) override {
    timed("blend_rows", [&] { inner_.blend_rows(y, a, x, b); });
  }
  void rms_norm_backward(ConstMatrix x, const float* weight, float eps, ConstMatrix dy, Matrix dx,
                         bool accumulate) override {
    timed("rms_norm_backward",
          [&] { inner_.rms_norm_backward(x, weight, eps, dy, dx, accumulate); });
  }
  void layer_norm_backward(ConstMatrix x, const float* weight, float eps, ConstMatrix dy, Matrix dx,
                           bool accumulate) override {
    timed("layer_norm_backward",
          [&] { inner_.layer_norm_backward(x, weight, eps, dy, dx, accumulate); });
  }
  void attention_backward(ConstMatrix qkv, const AttentionShape& shape,
                          std::span<const AttentionSpan> spans, ConstMatrix dy,
                          Matrix dqkv) override {
    timed("attention_backward", [&] { inner_.attention_backward(qkv, shape, spans, dy, dqkv); });
  }
  void rope_backward(Matrix dqkv, const AttentionShape& shape, float theta,
                     std::span<const AttentionSpan> spans) override {
    timed("rope_backward", [&] { inner_.rope_backward(dqkv, shape, theta, spans); });
  }
  void silu_mul_backward(ConstMatrix gate_up, ConstMatrix dy, Matrix dgate_up) override {
    timed("silu_mul_backward", [&] { inner_.silu_mul_backward(gate_up, dy, dgate_up); });
  }
  void gelu_backward(ConstMatrix x, ConstMatrix dy, Matrix dx) override {
    timed("gelu_backward", [&] { inner_.gelu_backward(x, dy, dx); });
  }
  void adamw(float* weight, const float* gradient, float* m, float* v, std::int64_t n,
             const AdamWStep& step) override {
    timed("adamw", [&] { inner_.adamw(weight, gradient, m, v, n, step); });
  }
  void delta_rule(ConstMatrix q, ConstMatrix k, ConstMatrix v, ConstMatrix beta, int heads,
                  float* state, Matrix o) override {
    timed("delta_rule", [&] { inner_.delta_rule(q, k, v, beta, heads, state, o); });
  }
  void causal_conv_silu(ConstMatrix x, const float* weight, float* state, Matrix y) override {
    timed("causal_conv_silu", [&] { inner_.causal_conv_silu(x, weight, state, y); });
  }
  void sigmoid(ConstMatrix x, float scale, Matrix y) override {
    timed("sigmoid", [&] { inner_.sigmoid(x, scale, y); });
  }

 private:
  template <class Fn>
  void timed(const std::string& name, const Fn& fn) {
    const double start = seconds_now(processor_);
    fn();
    seconds_[name] += seconds_now(processor_) - start;
  }
  Backend& inner_;
  bool processor_;
  std::map<std::string, double> seconds_;
};

}  // namespace memslot::bench
