#include "generator/model/gpt.h"

#include <algorithm>
#include <array>

#include "generator/model/gpt_impl.h"

namespace memslot {
namespace {

Status check_options(const ModelConfig& config, const Backend& backend, const GptOptions& options) {
  if (options.weights != DType::kF32 && options.weights != DType::kBF16) {
    return invalid("weights", "f32 or bf16", dtype_name(options.weights));
  }
  if (options.weights == DType::kBF16 && !backend.info().bf16) {
    return Error{
        ErrorCode::kNotSupported,
        "bf16 weights: expected a processor with AVX-512 BF16, found " + backend.info().isa};
  }
  int previous = -1;
  for (const int layer : options.slot_layers) {
    if (layer <= previous || layer >= config.layers) {
      return invalid("slot layer", "ascending and below " + std::to_string(config.layers), layer);
    }
    previous = layer;
  }
  return ok();
}

}  // namespace

Gpt::Gpt(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Gpt::~Gpt() = default;

Result<std::unique_ptr<Gpt>> Gpt::load(const ModelFile& file, Backend& backend,
                                       GptOptions options) {
  MEMSLOT_TRY(check_options(file.config(), backend, options));
  auto impl = std::make_unique<Impl>();
  impl->backend = &backend;
  impl->config = file.config();
  MEMSLOT_TRY(impl->weights, load_weights(file, backend, options));
  impl->options = std::move(options);
  MEMSLOT_TRY(impl->make_scratch());
  return std::unique_ptr<Gpt>(new Gpt(std::move(impl)));
}

const ModelConfig& Gpt::config() const { return impl_->config; }
const GptOptions& Gpt::options() const { return impl_->options; }
Backend& Gpt::backend() const { return *impl_->backend; }
const LayerWeights& Gpt::layer(int l) const {
  return impl_->weights.layers.at(static_cast<std::size_t>(l));
}
const PackedWeight& Gpt::output() const { return *impl_->weights.output; }
const Buffer& Gpt::final_norm() const { return impl_->weights.final_norm; }
const Buffer& Gpt::final_norm_bias() const { return impl_->weights.final_norm_bias; }
DType Gpt::activation_dtype() const { return impl_->activation(); }

MemoryReport Gpt::memory() const {
  MemoryReport report;
  for_each_tensor(impl_->weights,
                  [&](const void*, std::size_t bytes) { report.weight_bytes += bytes; });
  report.scratch_bytes = impl_->scratch.storage.bytes();
  return report;
}

Result<KvCache> Gpt::make_kv(std::int64_t initial_capacity) const {
  return KvCache::make(*impl_->backend, impl_->config, impl_->options.slot_layers,
                       impl_->activation(), initial_capacity);
}

void Gpt::logits(ConstMatrix hidden, Matrix out) {
  MEMSLOT_CHECK(hidden.rows == out.rows);
  for (std::int64_t row = 0; row < hidden.rows; row += kMaxRows) {
    const std::int64_t count = std::min(kMaxRows, hidden.rows - row);
    impl_->backend->linear(hidden.slice_rows(row, count), output(), out.slice_rows(row, count),
                           nullptr, /*accumulate=*/false);
  }
}

void Gpt::mlp(const MlpWeights& weights, ConstMatrix x, Matrix y) {
  for (std::int64_t row = 0; row < x.rows; row += kMaxRows) {
    const std::int64_t count = std::min(kMaxRows, x.rows - row);
    impl_->mlp(weights, x.slice_rows(row, count), y.slice_rows(row, count), /*accumulate=*/false);
  }
}

void Gpt::norm(ConstMatrix x, const Buffer& weight, const Buffer& bias, Matrix y) {
  impl_->norm(x, weight, bias, y);
}

Result<Sha256> Gpt::attest() const {
  constexpr std::size_t kPiece = std::size_t{1} << 20;
  std::vector<std::byte> piece(kPiece);
  Sha256Stream digest;
  Status status = ok();
  for_each_tensor(impl_->weights, [&](const void* data, std::size_t bytes) {
    for (std::size_t at = 0; at < bytes && status.has_value(); at += kPiece) {
      const auto part = std::span(piece).first(std::min(kPiece, bytes - at));
      status = impl_->backend->download(part, static_cast<const std::byte*>(data) + at);
      if (status.has_value()) digest.update(part);
    }
  });
  MEMSLOT_TRY(std::move(status));
  return digest.finish();
}

}  // namespace memslot
