#include "generator/runtime/slot_reader.h"

#include <algorithm>  // min
#include <cmath>
#include <utility>

#include "generator/learn/gate_slices.h"
#include "generator/learn/material.h"

namespace memslot {
namespace {

constexpr std::int64_t kRows = 32;  // of one forward call: a slice of the compute gate

Matrix rows_of(const Buffer& buffer, std::int64_t rows, std::int64_t cols) {
  return {buffer.data(), DType::kF32, rows, cols, cols};
}

}  // namespace

SlotReader::SlotReader(Gpt& gpt, std::size_t slot, ComputeGate& gate)
    : gpt_(gpt), slot_(slot), gate_(gate), base_(gpt, slot) {
  for (std::size_t i = 0; i < gpt.options().slot_layers.size(); ++i) slots_.emplace_back(gpt, i);
}

Result<SlotReader> SlotReader::make(Gpt& gpt, std::size_t slot, ComputeGate& gate) {
  SlotReader reader(gpt, slot, gate);
  const auto bytes = [](std::int64_t cols) {
    return static_cast<std::size_t>(kRows * cols) * sizeof(float);
  };
  MEMSLOT_TRY(reader.hidden_, gpt.backend().alloc(bytes(gpt.config().d_model)));
  MEMSLOT_TRY(reader.other_, gpt.backend().alloc(bytes(gpt.config().d_model)));
  MEMSLOT_TRY(reader.logits_, gpt.backend().alloc(bytes(gpt.config().vocab)));
  return reader;
}

void SlotReader::forward(const SlotCall& call) {
  slots_[call.slot].forward(call);
  if (call.slot != slot_ || slots_[slot_].active() == nullptr) return;
  const std::int64_t d = call.y.cols;
  for (std::int64_t row = 0; row < call.x.rows; row += kRows) {
    const std::int64_t count = std::min(kRows, call.x.rows - row);
    const Matrix other = rows_of(other_, count, d);
    base_.forward({call.slot, call.position + row, call.x.slice_rows(row, count), other});
    gpt_.backend().add(call.y.slice_rows(row, count), -1.0f, other);
    std::vector<float> difference(static_cast<std::size_t>(count * d));
    const Status down =
        gpt_.backend().download(std::as_writable_bytes(std::span(difference)), other.data);
    MEMSLOT_CHECK(down.has_value());
    for (auto at = difference.begin(); at != difference.end(); at += d) {
      double sum = 0;
      for (auto x = at; x != at + d; ++x) sum += double{*x} * double{*x};
      figures_.change = std::min(figures_.change, std::sqrt(sum));
    }
  }
}

Status SlotReader::score(std::span<const std::int32_t> targets, std::vector<std::int32_t>& best) {
  const std::int64_t rows = std::ssize(targets);
  const Matrix logits = rows_of(logits_, rows, gpt_.config().vocab);
  gpt_.logits(rows_of(hidden_, rows, gpt_.config().d_model), logits);
  std::vector<float> nll(targets.size());
  std::vector<std::int32_t> argmax(targets.size());
  gpt_.backend().token_loss(logits, targets, nll.data(), nullptr, argmax.data());
  for (const float loss : nll) figures_.nll_sum += double{loss};
  best.insert(best.end(), argmax.begin(), argmax.end());
  return ok();
}

Result<SlotReader::Figures> SlotReader::read(std::span<const std::int32_t> ids,
                                             std::shared_ptr<const LoadedMemory> memory,
                                             const Progress& progress) {
  MEMSLOT_CHECK(!ids.empty());
  const std::int64_t count = std::ssize(ids);
  figures_ = {};
  figures_.tokens = count - 1;
  figures_.change = memory == nullptr ? 0 : INFINITY;
  const SlotForward through = [this](const SlotCall& call) { forward(call); };
  std::vector<std::int32_t> best;
  GateSlices slices(gate_);
  slots_[slot_].activate(std::move(memory));
  MEMSLOT_TRY(KvCache kv, gpt_.make_kv(count));
  for (std::int64_t at = 0; at < count; at += kRows) {
    if (progress && !slices.outside([&] { return progress(at); })) {
      return Error{ErrorCode::kCancelled, "cancelled while reading"};
    }
    const auto first = static_cast<std::size_t>(at);
    const auto rows = static_cast<std::size_t>(std::min(kRows, count - at));
    Sequence sequence{ids.subspan(first, rows), &kv, &through,
                      std::vector<std::string>(slots_.size())};
    MEMSLOT_TRY(gpt_.forward({&sequence, 1},
                             rows_of(hidden_, std::ssize(sequence.tokens), gpt_.config().d_model),
                             /*last_only=*/false));
    std::vector<std::int32_t> targets(rows, -1);  // nothing follows the last token
    const auto next = ids.subspan(first + 1, std::min(rows, ids.size() - first - 1));
    std::copy(next.begin(), next.end(), targets.begin());
    MEMSLOT_TRY(score(targets, best));
    slices.breathe();
  }
  if (count > kRecallSkip) figures_.recall = recall(ids, best, kRecallSkip);
  return figures_;
}

}  // namespace memslot
