#include "generator/slot/lora_slot.h"

#include <algorithm>
#include <vector>

#include "generator/slot/mlp_slot.h"

namespace memslot {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// a [rank, inputs] with zero rows appended up to `padded`, after what `to` holds already.
void append_a(std::span<const float> a, std::int64_t padded, std::int64_t inputs,
              std::vector<float>& to) {
  const std::size_t end = to.size() + at(padded * inputs);
  to.insert(to.end(), a.begin(), a.end());
  to.resize(end, 0.0f);
}

// scale * b [outputs, rank] with zero columns appended up to `padded`.
std::vector<float> widen_b(std::span<const float> b, std::int64_t rank, std::int64_t padded,
                           std::int64_t outputs, float scale) {
  std::vector<float> wide(at(outputs * padded), 0.0f);
  for (std::int64_t o = 0; o < outputs; ++o) {
    for (std::int64_t r = 0; r < rank; ++r) wide[at(o * padded + r)] = scale * b[at(o * rank + r)];
  }
  return wide;
}

}  // namespace

Result<LoraMemory> LoraMemory::load(const MemoryPayload& payload, const MemoryPayload* outer,
                                    Backend& backend, DType weights) {
  static_cast<void>(outer);  // a lora has no outer parameters
  MEMSLOT_TRY(const LoraView v, LoraView::parse(payload));
  return load(to_values(v), v.form, v.d_model, v.d_ff, backend, weights);
}

Result<LoraMemory> LoraMemory::load(const LoraValues& v, MlpForm form, std::int64_t d,
                                    std::int64_t f, Backend& backend, DType weights) {
  LoraMemory m;
  m.form_ = form;
  m.padded_ = (v.rank + kRankBlock - 1) / kRankBlock * kRankBlock;
  const auto scale = static_cast<float>(v.alpha / static_cast<double>(v.rank));
  const auto pack = [&](const std::vector<float>& values, std::int64_t rows, std::int64_t cols) {
    return pack_values(backend, values, rows, cols, weights, Transpose::kNo);
  };
  const auto pack_b = [&](const LoraValues::Map& map, std::int64_t outputs) {
    return pack(widen_b(map.b, v.rank, m.padded_, outputs, scale), outputs, m.padded_);
  };
  std::vector<float> a_in, a_down;
  if (form == MlpForm::kSwiGlu) {
    append_a(v.gate.a, m.padded_, d, a_in);
    MEMSLOT_TRY(m.b_gate_, pack_b(v.gate, f));
  }
  append_a(v.up.a, m.padded_, d, a_in);
  append_a(v.down.a, m.padded_, f, a_down);
  MEMSLOT_TRY(m.a_in_, pack(a_in, std::ssize(a_in) / d, d));
  MEMSLOT_TRY(m.b_up_, pack_b(v.up, f));
  MEMSLOT_TRY(m.a_down_, pack(a_down, m.padded_, f));
  MEMSLOT_TRY(m.b_down_, pack_b(v.down, d));
  return m;
}

std::size_t LoraMemory::bytes() const {
  std::size_t sum = 0;
  for (const auto& part : {a_in_, b_gate_, b_up_, a_down_, b_down_})
    sum += part ? part->bytes() : 0;
  return sum;
}

void LoraMemory::forward(const SlotRun& run, Stateless&) const {
  Backend& backend = run.backend;
  const MlpWeights& base = run.base;
  const std::int64_t rows = run.x.rows, inner = base.gate_up->outputs(), f = base.down->inputs();
  const DType dtype = base.down->dtype();
  const Matrix wide = run.scratch.take(0, DType::kF32, rows, inner);
  const Matrix act = run.scratch.take(1, dtype, rows, f);
  const Matrix low = run.scratch.take(2, dtype, rows, a_in_->outputs());
  backend.linear(run.x, *base.gate_up, wide, static_cast<const float*>(base.up_bias.data()), false);
  backend.linear(run.x, *a_in_, low, nullptr, false);
  if (form_ == MlpForm::kSwiGlu) {
    backend.linear(low.slice_cols(0, padded_), *b_gate_, wide.slice_cols(0, f), nullptr, true);
    backend.linear(low.slice_cols(padded_, padded_), *b_up_, wide.slice_cols(f, f), nullptr, true);
    backend.silu_mul(wide, act);
  } else {
    backend.linear(low, *b_up_, wide, nullptr, true);
    backend.gelu(wide, act);
  }
  const Matrix low_down = run.scratch.take(2, dtype, rows, padded_);
  backend.linear(act, *base.down, run.y, static_cast<const float*>(base.down_bias.data()), false);
  backend.linear(act, *a_down_, low_down, nullptr, false);
  backend.linear(low_down, *b_down_, run.y, nullptr, true);
}

Result<MemoryPayload> LoraMemory::save(Backend&, const Stateless&) const {
  return stateless(MemoryKind::kLora);
}

Result<Stateless> LoraMemory::restore(Backend&, const MemoryPayload&) const {
  return stateless(MemoryKind::kLora);
}

}  // namespace memslot
