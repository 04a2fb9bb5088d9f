#include "shared/memory/payload.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <optional>

namespace memslot {
namespace {

static_assert(std::endian::native == std::endian::little, "payload bytes are little-endian");

// Limits. They are checked before anything is multiplied or allocated; docs/formats/memory.md.
constexpr std::uint16_t kFormat = 1;
constexpr std::size_t kAlignment = 64;
constexpr std::uint32_t kMaxScalars = 1024;
constexpr std::uint32_t kMaxTensors = 4096;
constexpr std::size_t kMaxNameBytes = 128;
constexpr std::int32_t kMaxLayer = 4095;
constexpr std::int32_t kMaxModelDim = 1 << 17;
constexpr std::int32_t kMaxFfDim = 1 << 20;

std::size_t aligned(std::size_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }

bool is_f32_name(std::string_view name) { return name.ends_with(":f32"); }

DType tensor_dtype(std::string_view name, DType payload) {
  return is_f32_name(name) ? DType::kF32 : payload;
}

bool is_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxNameBytes &&
         std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c <= '~'; });
}

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::size_t at() const { return at_; }

  // `what` names the field in the error.
  template <class T>
  Result<T> number(std::string_view what) {
    T value{};
    if (bytes_.size() - at_ < sizeof(T)) return short_of(what, sizeof(T));
    std::memcpy(&value, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }
  Result<Sha256> digest(std::string_view what) {
    Sha256 value;
    if (bytes_.size() - at_ < value.bytes.size()) return short_of(what, value.bytes.size());
    std::memcpy(value.bytes.data(), bytes_.data() + at_, value.bytes.size());
    at_ += value.bytes.size();
    return value;
  }
  Result<std::string> name(std::string_view what) {
    MEMSLOT_TRY(const auto size, number<std::uint16_t>(what));
    if (size > kMaxNameBytes) return corrupt(what, "at most 128 bytes", size);
    if (bytes_.size() - at_ < size) return short_of(what, size);
    std::string value(reinterpret_cast<const char*>(bytes_.data() + at_), size);
    at_ += size;
    if (!is_name(value)) return corrupt(what, "1 to 128 printable characters", "other bytes");
    return value;
  }

 private:
  Error short_of(std::string_view what, std::size_t need) const {
    return corrupt("payload " + std::string(what), std::to_string(need) + " bytes",
                   std::to_string(bytes_.size() - at_) + " before the end");
  }
  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;
};

Result<SlotSignature> read_signature(Reader& in, std::uint8_t kind) {
  SlotSignature s;
  s.kind = static_cast<MemoryKind>(kind);
  if (memory_kind_name(s.kind) == "unknown") return corrupt("payload kind", "1 to 10", int{kind});
  MEMSLOT_TRY(s.model, in.digest("model digest"));
  MEMSLOT_TRY(s.layer, in.number<std::int32_t>("layer"));
  if (s.layer < 0 || s.layer > kMaxLayer) return corrupt("payload layer", "0 to 4095", s.layer);
  MEMSLOT_TRY(const auto form, in.number<std::uint8_t>("mlp form"));
  s.form = static_cast<MlpForm>(form);
  if (mlp_form_name(s.form) == "unknown") return corrupt("payload mlp form", "1 or 2", int{form});
  for (int i = 0; i < 3; ++i) {
    MEMSLOT_TRY(const auto zero, in.number<std::uint8_t>("reserved bytes"));
    if (zero != 0) return corrupt("payload reserved bytes", 0, int{zero});
  }
  MEMSLOT_TRY(s.d_model, in.number<std::int32_t>("d_model"));
  if (s.d_model < 1 || s.d_model > kMaxModelDim) {
    return corrupt("payload d_model", "1 to 131072", s.d_model);
  }
  MEMSLOT_TRY(s.d_ff, in.number<std::int32_t>("d_ff"));
  if (s.d_ff < 1 || s.d_ff > kMaxFfDim) return corrupt("payload d_ff", "1 to 1048576", s.d_ff);
  MEMSLOT_TRY(s.outer, in.digest("outer digest"));
  return s;
}

// Bytes of a tensor, or nothing if it cannot lie within kMaxPayloadBytes.
std::optional<std::size_t> bounded_bytes(const Shape& shape, DType dtype) {
  const auto elements = shape.elements();  // at most 2^40, Shape::make() has seen to it
  if (elements > static_cast<std::int64_t>(kMaxPayloadBytes)) return std::nullopt;
  return static_cast<std::size_t>(elements) * dtype_size(dtype);
}

Result<MemoryPayload::Tensor> read_tensor(Reader& in, DType payload_dtype) {
  MemoryPayload::Tensor t;
  MEMSLOT_TRY(t.name, in.name("tensor name"));
  t.dtype = tensor_dtype(t.name, payload_dtype);
  MEMSLOT_TRY(const auto rank, in.number<std::uint8_t>("tensor rank"));
  if (rank > Shape::kMaxRank) return corrupt("payload tensor rank", "at most 4", int{rank});
  std::array<std::int64_t, Shape::kMaxRank> dims{};
  for (std::size_t i = 0; i < rank; ++i) {
    MEMSLOT_TRY(dims[i], in.number<std::int64_t>("tensor dimension"));
  }
  auto shape = Shape::make({dims.data(), rank});
  if (!shape)
    return Error{ErrorCode::kCorruption, "payload " + t.name + ": " + shape.error().message};
  t.shape = shape.value();
  MEMSLOT_TRY(const auto offset, in.number<std::uint64_t>("tensor offset"));
  t.offset = offset;
  return t;
}

Status check_zero(std::span<const std::byte> bytes, std::size_t from, std::size_t to) {
  for (std::size_t i = from; i < to; ++i) {
    if (bytes[i] != std::byte{0}) {
      return corrupt("payload padding at byte " + std::to_string(i), 0,
                     std::to_integer<int>(bytes[i]));
    }
  }
  return ok();
}

// Tensors lie one after another, each at the next multiple of 64, and nothing follows the last.
Status check_placement(std::span<const std::byte> bytes, std::size_t header_end,
                       std::span<const MemoryPayload::Tensor> tensors) {
  std::size_t end = header_end;
  for (const auto& t : tensors) {
    const std::size_t start = aligned(end);
    if (t.offset != start) return corrupt("payload offset of " + t.name, start, t.offset);
    const auto size = bounded_bytes(t.shape, t.dtype);
    if (!size || start > bytes.size() || *size > bytes.size() - start) {
      return corrupt("payload bytes of " + t.name,
                     t.shape.text() + " " + std::string(dtype_name(t.dtype)),
                     std::to_string(bytes.size()) + " bytes in all");
    }
    MEMSLOT_TRY(check_zero(bytes, end, start));
    end = start + *size;
  }
  if (tensors.empty()) end = aligned(end);
  if (bytes.size() != end) return corrupt("payload bytes", end, bytes.size());
  return tensors.empty() ? check_zero(bytes, header_end, end) : ok();
}

template <class T>
void append(std::vector<std::byte>& out, const T& value) {
  const std::size_t at = out.size();
  out.resize(at + sizeof(T));
  std::memcpy(out.data() + at, &value, sizeof(T));
}

void append_name(std::vector<std::byte>& out, std::string_view name) {
  append(out, static_cast<std::uint16_t>(name.size()));
  const auto raw = bytes_of(name);
  out.insert(out.end(), raw.begin(), raw.end());
}

void append_signature(std::vector<std::byte>& out, const SlotSignature& s) {
  append(out, s.model.bytes);
  append(out, s.layer);
  append(out, static_cast<std::uint8_t>(s.form));
  append(out, std::array<std::uint8_t, 3>{});
  append(out, s.d_model);
  append(out, s.d_ff);
  append(out, s.outer.bytes);
}

}  // namespace

Result<MemoryPayload> MemoryPayload::parse(std::vector<std::byte> bytes) {
  if (bytes.size() > kMaxPayloadBytes) {
    return corrupt("payload bytes", "at most 67108864", bytes.size());
  }
  if (bytes.size() < 4 || std::memcmp(bytes.data(), "MSM1", 4) != 0) {
    return corrupt("payload magic", "'MSM1'",
                   bytes.size() < 4 ? "fewer than 4 bytes" : "other bytes");
  }
  MemoryPayload p;
  Reader in(bytes);
  MEMSLOT_TRY(in.number<std::uint32_t>("magic"));
  MEMSLOT_TRY(const auto format, in.number<std::uint16_t>("format"));
  if (format == 0) return corrupt("payload format", 1, 0);
  if (format > kFormat) {
    return Error{ErrorCode::kNotSupported,
                 "payload format: expected 1, found " + std::to_string(format)};
  }
  MEMSLOT_TRY(const auto kind, in.number<std::uint8_t>("kind"));
  MEMSLOT_TRY(const auto dtype, in.number<std::uint8_t>("dtype"));
  p.dtype_ = static_cast<DType>(dtype);
  if (p.dtype_ != DType::kF32 && p.dtype_ != DType::kBF16) {
    return corrupt("payload dtype", "1 (f32) or 2 (bf16)", int{dtype});
  }
  MEMSLOT_TRY(p.signature_, read_signature(in, kind));
  MEMSLOT_TRY(const auto scalars, in.number<std::uint32_t>("scalar count"));
  if (scalars > kMaxScalars) return corrupt("payload scalar count", "at most 1024", scalars);
  for (std::uint32_t i = 0; i < scalars; ++i) {
    MEMSLOT_TRY(auto name, in.name("scalar name"));
    MEMSLOT_TRY(const auto value, in.number<double>("scalar value"));
    if (!p.scalars_.emplace(name, value).second)
      return corrupt("payload scalar", "one " + name, "two");
  }
  MEMSLOT_TRY(const auto tensors, in.number<std::uint32_t>("tensor count"));
  if (tensors > kMaxTensors) return corrupt("payload tensor count", "at most 4096", tensors);
  std::map<std::string, int, std::less<>> seen;
  for (std::uint32_t i = 0; i < tensors; ++i) {
    MEMSLOT_TRY(auto t, read_tensor(in, p.dtype_));
    if (++seen[t.name] > 1) return corrupt("payload tensor", "one " + t.name, "two");
    p.tensors_.push_back(std::move(t));
  }
  MEMSLOT_TRY(check_placement(bytes, in.at(), p.tensors_));
  p.bytes_ = std::move(bytes);
  return p;
}

Result<ConstHostTensor> MemoryPayload::tensor(std::string_view name) const {
  const auto it = std::find_if(tensors_.begin(), tensors_.end(),
                               [&](const Tensor& t) { return t.name == name; });
  if (it == tensors_.end()) return mismatch("payload tensor", name, "none of that name");
  return ConstHostTensor{it->dtype, it->shape, bytes_.data() + it->offset};
}

Result<ConstHostTensor> MemoryPayload::tensor(std::string_view name, const Shape& expected) const {
  MEMSLOT_TRY(const auto t, tensor(name));
  if (t.shape != expected) {
    return memslot::mismatch("payload tensor " + std::string(name), expected.text(),
                             t.shape.text());
  }
  return t;
}

Result<std::vector<float>> MemoryPayload::tensor_f32(std::string_view name,
                                                     const Shape& expected) const {
  MEMSLOT_TRY(const auto t, tensor(name, expected));
  std::vector<float> out(static_cast<std::size_t>(t.shape.elements()));
  if (out.empty()) return out;
  if (t.dtype == DType::kF32) {
    std::memcpy(out.data(), t.data, t.bytes());
    return out;
  }
  std::vector<std::uint16_t> raw(out.size());
  std::memcpy(raw.data(), t.data, t.bytes());
  convert(raw, out);
  return out;
}

Result<double> MemoryPayload::scalar(std::string_view name) const {
  const auto it = scalars_.find(name);
  if (it == scalars_.end()) return mismatch("payload scalar", name, "none of that name");
  return it->second;
}

Status MemoryPayload::check_finite() const {
  for (const auto& [name, value] : scalars_) {
    if (!std::isfinite(value)) return corrupt("payload scalar " + name, "a finite number", value);
  }
  for (const auto& t : tensors_) {
    // An exponent of all ones is a NaN or an infinity; integer tests vectorise.
    const auto* data = bytes_.data() + t.offset;
    const auto n = static_cast<std::size_t>(t.shape.elements());
    bool bad = false;
    for (std::size_t i = 0; t.dtype == DType::kF32 && i < n; ++i) {
      std::uint32_t u = 0;
      std::memcpy(&u, data + 4 * i, 4);
      bad |= (u & 0x7f800000U) == 0x7f800000U;
    }
    for (std::size_t i = 0; t.dtype == DType::kBF16 && i < n; ++i) {
      std::uint16_t u = 0;
      std::memcpy(&u, data + 2 * i, 2);
      bad |= (u & 0x7f80U) == 0x7f80U;
    }
    if (bad) return corrupt("payload tensor " + t.name, "finite numbers", "a NaN or infinity");
  }
  return ok();
}

MemoryPayloadBuilder::MemoryPayloadBuilder(SlotSignature signature, DType dtype)
    : signature_(signature), dtype_(dtype) {
  MEMSLOT_CHECK(dtype == DType::kF32 || dtype == DType::kBF16);
}

MemoryPayloadBuilder& MemoryPayloadBuilder::scalar(std::string name, double value) {
  MEMSLOT_CHECK(is_name(name));
  MEMSLOT_CHECK(scalars_.emplace(std::move(name), value).second);
  return *this;
}

MemoryPayloadBuilder& MemoryPayloadBuilder::tensor(std::string name, const Shape& shape,
                                                   std::span<const float> values) {
  MEMSLOT_CHECK(is_name(name));
  MEMSLOT_CHECK(shape.elements() >= 0 &&
                values.size() == static_cast<std::size_t>(shape.elements()));
  tensors_.push_back({std::move(name), shape, {values.begin(), values.end()}});
  return *this;
}

Result<MemoryPayload> MemoryPayloadBuilder::finish() const {
  std::vector<std::byte> out;
  for (const char c : {'M', 'S', 'M', '1'}) append(out, c);
  append(out, kFormat);
  append(out, static_cast<std::uint8_t>(signature_.kind));
  append(out, static_cast<std::uint8_t>(dtype_));
  append_signature(out, signature_);
  append(out, static_cast<std::uint32_t>(scalars_.size()));
  for (const auto& [name, value] : scalars_) {
    append_name(out, name);
    append(out, value);
  }
  append(out, static_cast<std::uint32_t>(tensors_.size()));
  std::size_t header = out.size();
  for (const auto& t : tensors_) {
    header += 2 + t.name.size() + 1 + 8 * static_cast<std::size_t>(t.shape.rank()) + 8;
  }
  std::size_t end = header;
  for (const auto& t : tensors_) {
    append_name(out, t.name);
    append(out, static_cast<std::uint8_t>(t.shape.rank()));
    for (int i = 0; i < t.shape.rank(); ++i) append(out, t.shape[i]);
    append(out, static_cast<std::uint64_t>(aligned(end)));
    end = aligned(end) + t.values.size() * dtype_size(tensor_dtype(t.name, dtype_));
  }
  if (tensors_.empty()) end = aligned(end);
  if (end > kMaxPayloadBytes) return invalid("payload bytes", "at most 67108864", end);
  out.reserve(end);
  for (const auto& t : tensors_) {
    out.resize(aligned(out.size()));
    if (tensor_dtype(t.name, dtype_) == DType::kF32) {
      const auto raw = std::as_bytes(std::span(t.values));
      out.insert(out.end(), raw.begin(), raw.end());
    } else {
      std::vector<std::uint16_t> half(t.values.size());
      convert(t.values, half);
      const auto raw = std::as_bytes(std::span(half));
      out.insert(out.end(), raw.begin(), raw.end());
    }
  }
  out.resize(end);
  auto parsed = MemoryPayload::parse(std::move(out));
  // What the builder refuses but the checks above do not see: too many tensors, a bad signature.
  if (!parsed) return Error{ErrorCode::kInvalidArgument, parsed.error().message};
  return parsed;
}

}  // namespace memslot
