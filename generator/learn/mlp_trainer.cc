#include <algorithm>

#include "generator/learn/trainer.h"
#include "generator/slot/slot_run.h"

namespace memslot {

Result<MlpTrainer> MlpTrainer::make(const TrainerSlot& slot, const MlpValues& start) {
  const ModelConfig& c = slot.gpt.config();
  MlpTrainer t(slot.gpt);
  t.gated_ = c.mlp_form == MlpForm::kSwiGlu;
  t.d_ = c.d_model;
  t.f_ = c.d_ff;
  std::vector<float> in = start.gate;
  in.insert(in.end(), start.up.begin(), start.up.end());
  t.gate_up_ = t.set_.add(t.wide_cols(), t.d_, in);
  t.down_ = t.set_.add(t.d_, t.f_, start.down);
  if (!t.gated_) {
    t.up_bias_ = t.set_.add(t.f_, 1, start.up_bias);
    t.down_bias_ = t.set_.add(t.d_, 1, start.down_bias);
  }
  const DType act = slot.gpt.activation_dtype(), f32 = DType::kF32;
  MEMSLOT_TRY(t.space_.reserve(kWide, f32, slot.rows, t.wide_cols()));
  MEMSLOT_TRY(t.space_.reserve(kGated, act, slot.rows, t.f_));
  MEMSLOT_TRY(t.space_.reserve(kDy, act, slot.rows, t.d_));
  MEMSLOT_TRY(t.space_.reserve(kDGated, f32, slot.rows, t.f_));
  MEMSLOT_TRY(t.space_.reserve(kDWide, act, slot.rows, t.wide_cols()));
  MEMSLOT_TRY(t.make_ones(slot.rows, act));
  MEMSLOT_TRY(t.pack());
  return t;
}

// By upload, which any thread may do while another computes.
Status MlpTrainer::make_ones(std::int64_t rows, DType dtype) {
  MEMSLOT_TRY(space_.reserve(kOnes, dtype, rows, 1));
  const std::vector<float> ones(static_cast<std::size_t>(rows), 1.0f);
  if (dtype == DType::kF32)
    return gpt_->backend().upload(space_.data(kOnes), std::as_bytes(std::span(ones)));
  std::vector<std::uint16_t> bits(ones.size());
  convert(ones, bits);
  return gpt_->backend().upload(space_.data(kOnes), std::as_bytes(std::span(bits)));
}

Status MlpTrainer::pack() {
  Backend& backend = gpt_->backend();
  const DType act = gpt_->activation_dtype();
  weights_.form = gated_ ? MlpForm::kSwiGlu : MlpForm::kGeluTanh;
  MEMSLOT_TRY(weights_.gate_up,
              pack_values(backend, set_.values(gate_up_), wide_cols(), d_, act, Transpose::kNo));
  MEMSLOT_TRY(weights_.down, pack_values(backend, set_.values(down_), d_, f_, act, Transpose::kNo));
  MEMSLOT_TRY(down_transposed_,
              pack_values(backend, set_.values(down_), d_, f_, act, Transpose::kYes));
  if (gated_) return ok();
  MEMSLOT_TRY(weights_.up_bias, upload_values(backend, set_.values(up_bias_)));
  MEMSLOT_TRY(weights_.down_bias, upload_values(backend, set_.values(down_bias_)));
  return ok();
}

void MlpTrainer::forward(ConstMatrix x, Matrix y) {
  Backend& backend = gpt_->backend();
  const Matrix wide = space_.matrix(kWide, DType::kF32, x.rows, wide_cols());
  const Matrix gated = space_.matrix(kGated, gpt_->activation_dtype(), x.rows, f_);
  backend.linear(x, *weights_.gate_up, wide, static_cast<const float*>(weights_.up_bias.data()),
                 false);
  if (gated_) {
    backend.silu_mul(wide, gated);
  } else {
    backend.gelu(wide, gated);
  }
  backend.linear(gated, *weights_.down, y, static_cast<const float*>(weights_.down_bias.data()),
                 false);
}

void MlpTrainer::backward(ConstMatrix x, ConstMatrix dy, bool accumulate) {
  Backend& backend = gpt_->backend();
  const DType act = gpt_->activation_dtype();
  const Matrix wide = space_.matrix(kWide, DType::kF32, x.rows, wide_cols());
  const Matrix gated = space_.matrix(kGated, act, x.rows, f_);
  const Matrix low = space_.matrix(kDy, act, x.rows, d_);
  const Matrix dgated = space_.matrix(kDGated, DType::kF32, x.rows, f_);
  const Matrix dwide = space_.matrix(kDWide, act, x.rows, wide_cols());
  backend.copy(dy, low);
  backend.linear(low, *down_transposed_, dgated, nullptr, false);
  backend.matmul_tn(low, gated, set_.gradient_of(down_), accumulate);
  if (gated_) {
    backend.silu_mul_backward(wide, dgated, dwide);
  } else {
    backend.gelu_backward(wide, dgated, dwide);
  }
  backend.matmul_tn(dwide, x, set_.gradient_of(gate_up_), accumulate);
  if (gated_) return;
  // A bias' gradient is the sum over rows: a product with a column of ones.
  const Matrix ones = space_.matrix(kOnes, act, x.rows, 1);
  backend.matmul_tn(dwide, ones, set_.gradient_of(up_bias_), accumulate);
  backend.matmul_tn(low, ones, set_.gradient_of(down_bias_), accumulate);
}

Result<MemoryPayload> MlpTrainer::payload(const SlotSignature& signature, DType dtype) const {
  const auto copy = [](std::span<const float> values) {
    return std::vector<float>(values.begin(), values.end());
  };
  const auto in = set_.values(gate_up_);
  const auto half = static_cast<std::size_t>(f_ * d_);
  MlpValues values;
  if (gated_) {
    values.gate = copy(in.first(half));
    values.up = copy(in.subspan(half));
  } else {
    values.up = copy(in);
    values.up_bias = copy(set_.values(up_bias_));
    values.down_bias = copy(set_.values(down_bias_));
  }
  values.down = copy(set_.values(down_));
  return make_mlp_payload(signature, dtype, values);
}

std::size_t MlpTrainer::bytes() const {
  return space_.bytes() + set_.bytes() + weights_.gate_up->bytes() + 2 * weights_.down->bytes();
}

}  // namespace memslot
