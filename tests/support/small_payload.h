#pragma once
// A valid payload of any implemented kind, every number of it `value`, for tests to which only the
// form matters.
#include <string>
#include <vector>

#include "shared/memory/payload.h"

namespace memslot::testing_support {

namespace small_payload_detail {
inline void add(MemoryPayloadBuilder& builder, const std::string& name, const Shape& shape,
                float value) {
  const std::vector<float> values(static_cast<std::size_t>(shape.elements()), value);
  builder.tensor(name, shape, values);
}
}  // namespace small_payload_detail

// SwiGLU; `lora` of rank 2; `delta`: a state of one head of 2 x 2 (signature.outer must be set).
inline MemoryPayload payload_of(const SlotSignature& s, DType dtype, float value) {
  const auto add = small_payload_detail::add;
  const std::int64_t d = s.d_model, f = s.d_ff;
  MemoryPayloadBuilder b(s, dtype);
  if (s.kind == MemoryKind::kMlp) {
    for (const char* name : {"gate", "up"}) add(b, name, Shape{f, d}, value);
    add(b, "down", Shape{d, f}, value);
  } else if (s.kind == MemoryKind::kLora) {
    b.scalar("rank", 2).scalar("alpha", 16);
    for (const std::string name : {"gate", "up", "down"}) {
      const bool down = name == "down";
      add(b, name + ".A", Shape{2, down ? f : d}, value);
      add(b, name + ".B", Shape{down ? d : f, 2}, value);
    }
  } else {
    b.scalar("position", 0);
    add(b, "S:f32", Shape{1, 2, 2}, value);
    for (const char* name : {"conv_q:f32", "conv_k:f32", "conv_v:f32"})
      add(b, name, Shape{2, 4}, value);
  }
  return b.finish().value();
}

// The same bytes under another kind and form, as a file that was tampered with would have them.
inline MemoryPayload signed_as(const MemoryPayload& payload, MemoryKind kind,
                               MlpForm form = MlpForm::kSwiGlu) {
  std::vector<std::byte> bytes(payload.bytes().begin(), payload.bytes().end());
  bytes[6] = static_cast<std::byte>(kind);  // docs/formats/memory.md
  bytes[44] = static_cast<std::byte>(form);
  return MemoryPayload::parse(std::move(bytes)).value();
}

}  // namespace memslot::testing_support
