#include "generator/slot/mlp_slot.h"

#include <cstring>
#include <string>
#include <vector>

namespace memslot {
namespace {

// Gate rows, then up rows, as one matrix [2F, D]. In a payload they usually stand so already.
Result<std::shared_ptr<const PackedWeight>> pack_gate_up(const MlpView& v, Backend& backend,
                                                         DType weights) {
  ConstHostTensor both{v.gate.dtype, Shape{2 * v.d_ff, v.d_model}, v.gate.data};
  if (v.up.data == v.gate.data + v.gate.bytes()) return backend.pack(both, weights, Transpose::kNo);
  std::vector<std::byte> joined(v.gate.bytes() + v.up.bytes());
  std::memcpy(joined.data(), v.gate.data, v.gate.bytes());
  std::memcpy(joined.data() + v.gate.bytes(), v.up.data, v.up.bytes());
  both.data = joined.data();
  return backend.pack(both, weights, Transpose::kNo);
}

}  // namespace

Result<std::shared_ptr<const PackedWeight>> pack_values(Backend& backend,
                                                        std::span<const float> values,
                                                        std::int64_t rows, std::int64_t cols,
                                                        DType dtype, Transpose transpose) {
  MEMSLOT_CHECK(std::ssize(values) == rows * cols);
  const auto* bytes = reinterpret_cast<const std::byte*>(values.data());
  return backend.pack({DType::kF32, Shape{rows, cols}, bytes}, dtype, transpose);
}

Result<Buffer> upload_values(Backend& backend, std::span<const float> values) {
  if (values.empty()) return Buffer{};
  MEMSLOT_TRY(Buffer buffer, backend.alloc(values.size_bytes()));
  MEMSLOT_TRY(backend.upload(buffer.data(), std::as_bytes(values)));
  return buffer;
}

Error stateless(MemoryKind kind) {
  return {ErrorCode::kNotSupported, "state of a memory: expected a stateful kind, found " +
                                        std::string(memory_kind_name(kind))};
}

Result<MlpMemory> MlpMemory::load(const MemoryPayload& payload, const MemoryPayload* outer,
                                  Backend& backend, DType weights) {
  static_cast<void>(outer);  // an mlp has no outer parameters
  MEMSLOT_TRY(const MlpView v, MlpView::parse(payload));
  MlpMemory memory;
  memory.weights_.form = v.form;
  MEMSLOT_TRY(memory.weights_.gate_up, v.form == MlpForm::kSwiGlu
                                           ? pack_gate_up(v, backend, weights)
                                           : backend.pack(v.up, weights, Transpose::kNo));
  MEMSLOT_TRY(memory.weights_.down, backend.pack(v.down, weights, Transpose::kNo));
  MEMSLOT_TRY(memory.weights_.up_bias, upload_values(backend, to_f32(v.up_bias)));
  MEMSLOT_TRY(memory.weights_.down_bias, upload_values(backend, to_f32(v.down_bias)));
  return memory;
}

std::size_t MlpMemory::bytes() const {
  return weights_.gate_up->bytes() + weights_.down->bytes() + weights_.up_bias.bytes() +
         weights_.down_bias.bytes();
}

void run_mlp(const SlotRun& run, const MlpWeights& w) {
  const std::int64_t inner = w.gate_up->outputs();
  const bool gated = w.form == MlpForm::kSwiGlu;
  const Matrix wide = run.scratch.take(0, DType::kF32, run.x.rows, inner);
  const Matrix act = run.scratch.take(1, w.down->dtype(), run.x.rows, gated ? inner / 2 : inner);
  const auto* up_bias = static_cast<const float*>(w.up_bias.data());
  run.backend.linear(run.x, *w.gate_up, wide, up_bias, /*accumulate=*/false);
  if (gated) {
    run.backend.silu_mul(wide, act);
  } else {
    run.backend.gelu(wide, act);
  }
  const auto* down_bias = static_cast<const float*>(w.down_bias.data());
  run.backend.linear(act, *w.down, run.y, down_bias, /*accumulate=*/false);
}

void MlpMemory::forward(const SlotRun& run, Stateless&) const { run_mlp(run, weights_); }

Result<MemoryPayload> MlpMemory::save(Backend&, const Stateless&) const {
  return stateless(MemoryKind::kMlp);
}

Result<Stateless> MlpMemory::restore(Backend&, const MemoryPayload&) const {
  return stateless(MemoryKind::kMlp);
}

}  // namespace memslot
