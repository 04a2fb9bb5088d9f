#include <algorithm>
#include <vector>

#include "generator/learn/trainer.h"
#include "generator/slot/slot_run.h"

namespace memslot {
namespace {

std::vector<float> scaled(std::span<const float> values, float factor) {
  std::vector<float> out(values.begin(), values.end());
  for (float& v : out) v *= factor;
  return out;
}

}  // namespace

Result<LoraTrainer> LoraTrainer::make(const TrainerSlot& slot, const LoraValues& start) {
  const ModelConfig& c = slot.gpt.config();
  LoraTrainer t(slot.gpt);
  t.base_ = &slot.gpt.layer(slot.layer).mlp;
  t.gated_ = c.mlp_form == MlpForm::kSwiGlu;
  t.d_ = c.d_model;
  t.f_ = c.d_ff;
  t.rank_ = start.rank;
  t.alpha_ = start.alpha;
  if (t.gated_) t.gate_ = t.add_map(start.gate, t.d_, t.f_);
  t.up_ = t.add_map(start.up, t.d_, t.f_);
  t.down_ = t.add_map(start.down, t.f_, t.d_);
  const DType act = slot.gpt.activation_dtype(), f32 = DType::kF32;
  const std::int64_t rows = slot.rows, wide = t.gated_ ? 2 * t.f_ : t.f_;
  MEMSLOT_TRY(t.space_.reserve(kWide, f32, rows, wide));
  MEMSLOT_TRY(t.space_.reserve(kGated, act, rows, t.f_));
  MEMSLOT_TRY(t.space_.reserve(kDy, act, rows, t.d_));
  MEMSLOT_TRY(t.space_.reserve(kDGated, f32, rows, t.f_));
  MEMSLOT_TRY(t.space_.reserve(kDWide, act, rows, wide));
  MEMSLOT_TRY(t.space_.reserve(kLowIn, act, rows, 2 * t.rank_));
  MEMSLOT_TRY(t.space_.reserve(kLowDown, act, rows, t.rank_));
  MEMSLOT_TRY(t.space_.reserve(kDLow, act, rows, t.rank_));
  MEMSLOT_TRY(t.space_.reserve(kDLowF32, f32, rows, t.rank_));
  MEMSLOT_TRY(const HostTensor down, slot.file.tensor(TensorRole::kDown, slot.layer));
  MEMSLOT_TRY(t.base_down_transposed_, slot.gpt.backend().pack(down.view(), act, Transpose::kYes));
  MEMSLOT_TRY(t.pack());
  return t;
}

LoraTrainer::Map LoraTrainer::add_map(const LoraValues::Map& start, std::int64_t inputs,
                                      std::int64_t outputs) {
  Map map;
  map.a = set_.add(rank_, inputs, start.a);
  map.b = set_.add(outputs, rank_, start.b);
  return map;
}

// B is packed with the scale alpha / r in it; A as it is.
Status LoraTrainer::pack_map(Map& map, bool need_a_transposed) {
  Backend& backend = gpt_->backend();
  const DType act = gpt_->activation_dtype();
  const auto& a = set_.part(map.a);
  const auto& b = set_.part(map.b);
  const auto b_values =
      scaled(set_.values(map.b), static_cast<float>(alpha_ / static_cast<double>(rank_)));
  MEMSLOT_TRY(map.a_packed,
              pack_values(backend, set_.values(map.a), a.rows, a.cols, act, Transpose::kNo));
  MEMSLOT_TRY(map.b_packed, pack_values(backend, b_values, b.rows, b.cols, act, Transpose::kNo));
  MEMSLOT_TRY(map.b_transposed,
              pack_values(backend, b_values, b.rows, b.cols, act, Transpose::kYes));
  if (need_a_transposed) {
    MEMSLOT_TRY(map.a_transposed,
                pack_values(backend, set_.values(map.a), a.rows, a.cols, act, Transpose::kYes));
  }
  return ok();
}

Status LoraTrainer::pack() {
  if (gated_) {
    MEMSLOT_TRY(pack_map(gate_, false));
  }
  MEMSLOT_TRY(pack_map(up_, false));
  return pack_map(down_, true);
}

// x A^T of gate (0) and up (1), in two halves of one place.
Matrix LoraTrainer::low_in(std::int64_t rows, int which) const {
  return space_.matrix(kLowIn, gpt_->activation_dtype(), 2 * rows, rank_)
      .slice_rows(which * rows, rows);
}

void LoraTrainer::forward(ConstMatrix x, Matrix y) {
  Backend& backend = gpt_->backend();
  const DType act = gpt_->activation_dtype();
  const std::int64_t wide_cols = gated_ ? 2 * f_ : f_;
  const Matrix wide = space_.matrix(kWide, DType::kF32, x.rows, wide_cols);
  const Matrix gated = space_.matrix(kGated, act, x.rows, f_);
  const Matrix low_down = space_.matrix(kLowDown, act, x.rows, rank_);
  backend.linear(x, *base_->gate_up, wide, static_cast<const float*>(base_->up_bias.data()), false);
  const auto correct = [&](const Map& map, int which, Matrix to) {
    backend.linear(x, *map.a_packed, low_in(x.rows, which), nullptr, false);
    backend.linear(low_in(x.rows, which), *map.b_packed, to, nullptr, true);
  };
  if (gated_) {
    correct(gate_, 0, wide.slice_cols(0, f_));
    correct(up_, 1, wide.slice_cols(f_, f_));
    backend.silu_mul(wide, gated);
  } else {
    correct(up_, 1, wide);
    backend.gelu(wide, gated);
  }
  backend.linear(gated, *base_->down, y, static_cast<const float*>(base_->down_bias.data()), false);
  backend.linear(gated, *down_.a_packed, low_down, nullptr, false);
  backend.linear(low_down, *down_.b_packed, y, nullptr, true);
}

void LoraTrainer::map_backward(const Map& map, ConstMatrix x, ConstMatrix low, ConstMatrix dy,
                               bool accumulate) {
  Backend& backend = gpt_->backend();
  const Matrix dlow = space_.matrix(kDLow, gpt_->activation_dtype(), x.rows, rank_);
  backend.linear(dy, *map.b_transposed, dlow, nullptr, false);
  backend.matmul_tn(dlow, x, set_.gradient_of(map.a), accumulate);
  // Without the scale of y = s B low, which finish_gradient() puts on.
  backend.matmul_tn(dy, low, set_.gradient_of(map.b), accumulate);
}

void LoraTrainer::backward(ConstMatrix x, ConstMatrix dy, bool accumulate) {
  Backend& backend = gpt_->backend();
  const DType act = gpt_->activation_dtype();
  const Matrix wide = space_.matrix(kWide, DType::kF32, x.rows, gated_ ? 2 * f_ : f_);
  const Matrix gated = space_.matrix(kGated, act, x.rows, f_);
  const Matrix low_dy = space_.matrix(kDy, act, x.rows, d_);
  const Matrix dgated = space_.matrix(kDGated, DType::kF32, x.rows, f_);
  const Matrix dwide = space_.matrix(kDWide, act, x.rows, gated_ ? 2 * f_ : f_);
  backend.copy(dy, low_dy);
  map_backward(down_, gated, space_.matrix(kLowDown, act, x.rows, rank_), low_dy, accumulate);
  backend.linear(low_dy, *base_down_transposed_, dgated, nullptr, false);
  backend.linear(space_.matrix(kDLow, act, x.rows, rank_), *down_.a_transposed, dgated, nullptr,
                 true);
  if (gated_) {
    backend.silu_mul_backward(wide, dgated, dwide);
    map_backward(gate_, x, low_in(x.rows, 0), dwide.slice_cols(0, f_), accumulate);
    map_backward(up_, x, low_in(x.rows, 1), dwide.slice_cols(f_, f_), accumulate);
  } else {
    backend.gelu_backward(wide, dgated, dwide);
    map_backward(up_, x, low_in(x.rows, 1), dwide, accumulate);
  }
}

void LoraTrainer::finish_gradient() {
  const auto scale = static_cast<float>(alpha_ / static_cast<double>(rank_));
  if (scale == 1.0f) return;
  const auto scale_b = [&](const Map& map) {
    const Matrix b = set_.gradient_of(map.b);
    std::for_each_n(b.f32(), b.rows * b.cols, [scale](float& g) { g *= scale; });
  };
  if (gated_) scale_b(gate_);
  scale_b(up_);
  scale_b(down_);
}

Result<MemoryPayload> LoraTrainer::payload(const SlotSignature& signature, DType dtype) const {
  const auto take = [&](const Map& map) {
    const auto a = set_.values(map.a), b = set_.values(map.b);
    return LoraValues::Map{{a.begin(), a.end()}, {b.begin(), b.end()}};
  };
  LoraValues values;
  values.rank = rank_;
  values.alpha = alpha_;
  if (gated_) values.gate = take(gate_);
  values.up = take(up_);
  values.down = take(down_);
  return make_lora_payload(signature, dtype, values);
}

std::size_t LoraTrainer::bytes() const {
  return space_.bytes() + set_.bytes() + base_down_transposed_->bytes();
}

}  // namespace memslot
