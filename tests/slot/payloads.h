#pragma once
// Payloads with reproducible random values, for tests.
#include <cstdint>
#include <vector>

#include "shared/base/rng.h"
#include "shared/memory/layout/delta.h"
#include "shared/memory/layout/lora.h"
#include "shared/memory/layout/mlp.h"

namespace memslot::testing_support {

inline std::vector<float> random_values(std::int64_t count, std::uint64_t stream,
                                        double scale = 0.1) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(scale * (2 * uniform01(7, stream, i) - 1));
  }
  return values;
}

inline SlotSignature signature_of(MemoryKind kind, MlpForm form, std::int32_t d, std::int32_t f) {
  SlotSignature s;
  s.model.bytes[0] = 1;
  s.layer = 2;
  s.kind = kind;
  s.form = form;
  s.d_model = d;
  s.d_ff = f;
  return s;
}

inline MemoryPayload random_mlp(const SlotSignature& s, DType dtype, std::uint64_t stream = 1) {
  const std::int64_t n = std::int64_t{s.d_model} * s.d_ff;
  MlpValues v;
  v.up = random_values(n, stream);
  v.down = random_values(n, stream + 100);
  if (s.form == MlpForm::kSwiGlu) {
    v.gate = random_values(n, stream + 200);
  } else {
    v.up_bias = random_values(s.d_ff, stream + 300);
    v.down_bias = random_values(s.d_model, stream + 400);
  }
  return make_mlp_payload(s, dtype, v).value();
}

inline MemoryPayload random_lora(const SlotSignature& s, DType dtype, std::int64_t rank,
                                 double b_scale, std::uint64_t stream = 1) {
  const auto map = [&](std::int64_t in, std::int64_t out, std::uint64_t k) {
    return LoraValues::Map{random_values(rank * in, stream + k),
                           random_values(out * rank, stream + k + 1, b_scale)};
  };
  LoraValues v;
  v.rank = rank;
  v.alpha = 2.0 * static_cast<double>(rank);
  if (s.form == MlpForm::kSwiGlu) v.gate = map(s.d_model, s.d_ff, 10);
  v.up = map(s.d_model, s.d_ff, 20);
  v.down = map(s.d_ff, s.d_model, 30);
  return make_lora_payload(s, dtype, v).value();
}

}  // namespace memslot::testing_support
