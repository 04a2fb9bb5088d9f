#include "generator/runtime/observer.h"

#include <algorithm>  // max
#include <cstring>    // memcpy

namespace memslot {

void Observer::start(std::int64_t first_position, std::int64_t boundary) {
  first_position_ = std::max<std::int64_t>(first_position, 1);
  boundary_ = boundary;
  chunks_.clear();
  std::fill(sum_.begin(), sum_.end(), 0.0);
  rows_ = 0;
  entropy_ = nll_ = 0;
  tokens_ = 0;
}

void Observer::add_rows(const SlotCall& call) {
  const auto width = static_cast<std::size_t>(call.x.cols);
  sum_.resize(width, 0.0);
  host_.resize(width * dtype_size(call.x.dtype));
  for (std::int64_t row = 0; row < call.x.rows; ++row) {
    if (call.position + row < first_position_) continue;
    const Status read = backend_->download(host_, call.x.slice_rows(row, 1).data);
    MEMSLOT_CHECK(read.has_value());
    for (std::size_t i = 0; i < width; ++i) {
      if (call.x.dtype == DType::kBF16) {
        std::uint16_t value = 0;
        std::memcpy(&value, host_.data() + 2 * i, sizeof value);
        sum_[i] += static_cast<double>(bf16_to_f32(value));
      } else {
        float value = 0;
        std::memcpy(&value, host_.data() + 4 * i, sizeof value);
        sum_[i] += static_cast<double>(value);
      }
    }
    ++rows_;
    if ((call.position + row + 1 - boundary_) % wire::kChunkTokens == 0) close_chunk();
  }
}

wire::ChunkSummary Observer::open_chunk() const {
  wire::ChunkSummary out{{}, rows_};
  out.mean.reserve(sum_.size());
  for (const double s : sum_) out.mean.push_back(static_cast<float>(s / rows_));
  return out;
}

void Observer::close_chunk() {
  if (chunks_.size() == wire::kWindowTokens / wire::kChunkTokens) chunks_.erase(chunks_.begin());
  chunks_.push_back(open_chunk());
  std::fill(sum_.begin(), sum_.end(), 0.0);
  rows_ = 0;
}

void Observer::add_token(double entropy, double nll) {
  entropy_ += entropy;
  nll_ += nll;
  ++tokens_;
}

StepSummary Observer::summary() const {
  StepSummary out;
  out.chunks = chunks_;
  if (rows_ > 0) out.chunks.push_back(open_chunk());
  if (tokens_ > 0) {
    out.entropy = static_cast<float>(entropy_ / tokens_);
    out.surprise = static_cast<float>(nll_ / tokens_);
  }
  return out;
}

}  // namespace memslot
