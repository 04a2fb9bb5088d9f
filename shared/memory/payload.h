#pragma once
// A memory's payload: one self-describing block of bytes, immutable, at most kMaxPayloadBytes.
//
// Bytes, little-endian (normative: docs/formats/memory.md):
//   "MSM1" | u16 format=1 | u8 kind | u8 dtype (of all tensors: f32 or bf16) | SlotSignature (fixed
//   fields: model[32] i32 layer u8 form u8[3]=0 i32 d_model i32 d_ff outer[32]) | u32 meta_count,
//   (u16 name_len name f64 value)* | u32 tensor_count, (u16 name_len name u8 rank i64 dims[rank]
//   u64 offset)* | padding to 64 | tensor data, each tensor 64-byte aligned relative to the start.
// Tensors with their own dtype: a name ending in ":f32" is f32 whatever the payload's dtype
// (states).
//
// Which tensors and scalars a kind has: shared/memory/layout/<kind>.h.
//
// Owner:   MemoryPayload owns its bytes and is move-only; views borrow from it.
// Threads: immutable after parse or finish; share freely.
#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "shared/memory/signature.h"
#include "shared/tensor/tensor.h"

namespace memslot {

inline constexpr std::size_t kMaxPayloadBytes = std::size_t{64} << 20;

class MemoryPayload {
 public:
  struct Tensor {
    std::string name;
    DType dtype = DType::kF32;
    Shape shape;
    std::size_t offset = 0;  // into bytes()
  };

  // Verifies magic, limits, offsets, alignment, exact length; not finiteness (see check_finite()).
  // kCorruption, kNotSupported (a newer format).
  static Result<MemoryPayload> parse(std::vector<std::byte> bytes);

  MemoryPayload(MemoryPayload&&) noexcept = default;
  MemoryPayload& operator=(MemoryPayload&&) noexcept = default;

  const SlotSignature& signature() const { return signature_; }
  MemoryKind kind() const { return signature_.kind; }
  DType dtype() const { return dtype_; }
  std::span<const std::byte> bytes() const { return bytes_; }
  const std::vector<Tensor>& tensors() const { return tensors_; }

  // kMismatch if absent, or if the shape differs from `expected`.
  Result<ConstHostTensor> tensor(std::string_view name, const Shape& expected) const;
  // Any shape.
  Result<ConstHostTensor> tensor(std::string_view name) const;
  // The tensor converted to f32.
  Result<std::vector<float>> tensor_f32(std::string_view name, const Shape& expected) const;
  Result<double> scalar(std::string_view name) const;

  // kCorruption naming the first tensor that has a NaN or infinity.
  Status check_finite() const;

 private:
  friend class MemoryPayloadBuilder;
  MemoryPayload() = default;
  std::vector<std::byte> bytes_;
  SlotSignature signature_;
  DType dtype_ = DType::kF32;
  std::map<std::string, double, std::less<>> scalars_;
  std::vector<Tensor> tensors_;
};

// Writes a payload. Tensors given as f32 are stored in `dtype` (or f32 for names ending ":f32").
class MemoryPayloadBuilder {
 public:
  MemoryPayloadBuilder(SlotSignature signature, DType dtype);  // REQUIRES: f32 or bf16
  MemoryPayloadBuilder& scalar(std::string name, double value);
  MemoryPayloadBuilder& tensor(std::string name, const Shape& shape, std::span<const float> values);
  // kInvalidArgument over kMaxPayloadBytes.
  Result<MemoryPayload> finish() const;

 private:
  struct Pending {
    std::string name;
    Shape shape;
    std::vector<float> values;
  };
  SlotSignature signature_;
  DType dtype_;
  std::map<std::string, double, std::less<>> scalars_;
  std::vector<Pending> tensors_;
};

}  // namespace memslot
