#include <algorithm>
#include <array>

#include "generator/model/gpt_impl.h"

namespace memslot {
namespace {

const float* floats(const Buffer& buffer) { return static_cast<const float*>(buffer.data()); }

Matrix rows_of(const Matrix& m, std::int64_t rows) { return m.slice_rows(0, rows); }

}  // namespace

int Gpt::Impl::slot_at(int layer) const {
  const auto& slots = options.slot_layers;
  const auto found = std::find(slots.begin(), slots.end(), layer);
  return found == slots.end() ? -1 : static_cast<int>(found - slots.begin());
}

Status Gpt::Impl::make_scratch() {
  const std::int64_t d = config.d_model, q = config.q_width();
  const std::int64_t up = config.mlp_width();
  struct Part {
    Matrix* matrix;
    DType dtype;
    std::int64_t cols;
  };
  const DType act = activation(), f32 = DType::kF32;
  const Part parts[] = {{&scratch.residual, f32, d},
                        {&scratch.normed, act, d},
                        {&scratch.qkv, f32, q + 2 * config.kv_width()},
                        {&scratch.attended, act, q},
                        {&scratch.up, f32, up},
                        {&scratch.gated, act, config.d_ff},
                        {&scratch.slot_out, f32, d},
                        {&scratch.last, f32, d},
                        {&scratch.last_attended, act, q}};
  const auto size_of = [](const Part& part) {
    const auto bytes = static_cast<std::size_t>(kMaxRows * part.cols) * dtype_size(part.dtype);
    return (bytes + 63) / 64 * 64;  // every part starts on a cache line
  };
  std::size_t total = 0;
  for (const auto& part : parts) total += size_of(part);
  MEMSLOT_TRY(scratch.storage, backend->alloc(total));
  auto* at = static_cast<std::byte*>(scratch.storage.data());
  for (const auto& part : parts) {
    *part.matrix = {at, part.dtype, kMaxRows, part.cols, part.cols};
    at += size_of(part);
  }
  return ok();
}

Status Gpt::Impl::check(std::span<Sequence> batch) const {
  for (const auto& sequence : batch) {
    MEMSLOT_CHECK(sequence.kv != nullptr);
    if (sequence.tokens.empty()) return invalid("tokens of a sequence", "at least one", "none");
    const std::int64_t end = sequence.kv->length() + std::ssize(sequence.tokens);
    if (end > config.context) {
      return invalid("positions", "at most " + std::to_string(config.context) + " (the context)",
                     end);
    }
    for (const auto id : sequence.tokens) {
      if (id < 0 || id >= config.vocab) {
        return invalid("token id", "0 to " + std::to_string(config.vocab - 1), id);
      }
    }
  }
  return ok();
}

void Gpt::Impl::norm(ConstMatrix x, const Buffer& weight, const Buffer& bias, Matrix y) {
  if (is_llama()) {
    backend->rms_norm(x, floats(weight), config.norm_eps, y);
  } else {
    backend->layer_norm(x, floats(weight), floats(bias), config.norm_eps, y);
  }
}

void Gpt::Impl::mlp(const MlpWeights& w, ConstMatrix x, Matrix y, bool accumulate) {
  const Matrix up = rows_of(scratch.up, x.rows), gated = rows_of(scratch.gated, x.rows);
  backend->linear(x, *w.gate_up, up, floats(w.up_bias), /*accumulate=*/false);
  if (w.form == MlpForm::kSwiGlu) {
    backend->silu_mul(up, gated);
  } else {
    backend->gelu(up, gated);
  }
  backend->linear(gated, *w.down, y, floats(w.down_bias), accumulate);
}

std::vector<std::vector<ChunkPart>> Gpt::Impl::cut(std::span<Sequence> batch,
                                                   bool last_only) const {
  std::vector<std::vector<ChunkPart>> chunks;
  std::int64_t room = 0, out_row = 0;
  for (auto& sequence : batch) {
    const std::int64_t tokens = std::ssize(sequence.tokens);
    for (std::int64_t offset = 0; offset < tokens;) {
      if (room == 0) {
        chunks.emplace_back();
        room = kMaxRows;
      }
      const std::int64_t count = std::min(room, tokens - offset);
      const bool ends = offset + count == tokens;
      chunks.back().push_back({&sequence, kMaxRows - room, count, sequence.kv->length() + offset,
                               offset, last_only && ends ? out_row : -1});
      room -= count;
      offset += count;
    }
    ++out_row;
  }
  return chunks;
}

void Gpt::Impl::embed(std::span<const ChunkPart> parts) {
  for (const auto& part : parts) {
    const auto ids = part.sequence->tokens.subspan(static_cast<std::size_t>(part.offset),
                                                   static_cast<std::size_t>(part.count));
    const Matrix x = scratch.residual.slice_rows(part.row, part.count);
    backend->embed(*weights.embedding, ids, x);
    if (weights.positions == nullptr) continue;
    std::vector<std::int32_t> positions(ids.size());
    for (std::size_t i = 0; i < ids.size(); ++i) {
      positions[i] = static_cast<std::int32_t>(part.position + static_cast<std::int64_t>(i));
    }
    const Matrix added = scratch.slot_out.slice_rows(part.row, part.count);
    backend->embed(*weights.positions, positions, added);
    backend->add(added, 1.0f, x);
  }
}

// residual += attention(norm(residual)). With `last_rows` only the rows that end a sequence go on:
// they are gathered in scratch.last.
void Gpt::Impl::attend(int layer, std::span<const ChunkPart> parts, std::int64_t rows,
                       bool last_rows) {
  const auto& w = weights.layers[static_cast<std::size_t>(layer)];
  const auto shape = attention_shape();
  const Matrix x = rows_of(scratch.residual, rows), normed = rows_of(scratch.normed, rows);
  const Matrix qkv = rows_of(scratch.qkv, rows), attended = rows_of(scratch.attended, rows);
  norm(x, w.attn_norm, w.attn_norm_bias, normed);
  backend->linear(normed, *w.qkv, qkv, floats(w.qkv_bias), /*accumulate=*/false);
  std::vector<AttentionSpan> spans;
  for (const auto& part : parts) {
    spans.push_back({part.row, part.count, part.position, part.sequence->kv->layer(layer)});
  }
  backend->rope_store(qkv, shape, is_llama() ? config.rope_theta : 0.0f, spans);
  if (!last_rows) {
    backend->attention(qkv, shape, spans, attended);
    backend->linear(attended, *w.attn_out, x, floats(w.attn_out_bias), /*accumulate=*/true);
    return;
  }
  std::vector<AttentionSpan> last_spans;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].out_row < 0) continue;
    const std::int64_t skip = parts[i].count - 1;
    last_spans.push_back({spans[i].row + skip, 1, spans[i].position + skip, spans[i].kv});
  }
  backend->attention(qkv, shape, last_spans, attended);
  const std::int64_t count = gather_last(parts, scratch.attended, scratch.last_attended);
  gather_last(parts, scratch.residual, scratch.last);
  backend->linear(rows_of(scratch.last_attended, count), *w.attn_out, rows_of(scratch.last, count),
                  floats(w.attn_out_bias), /*accumulate=*/true);
}

std::int64_t Gpt::Impl::gather_last(std::span<const ChunkPart> parts, Matrix from, Matrix to) {
  std::int64_t count = 0;
  for (const auto& part : parts) {
    if (part.out_row < 0) continue;
    backend->copy(from.slice_rows(part.row + part.count - 1, 1), to.slice_rows(count++, 1));
  }
  return count;
}

// At a slot the MLP's answer is always computed apart and then added, for base as for memories, so
// that base's bits do not depend on which sequences of the batch have a memory.
void Gpt::Impl::run_slot(std::size_t slot, int layer, std::span<const ChunkPart> parts,
                         std::int64_t rows) {
  const auto& w = weights.layers[static_cast<std::size_t>(layer)];
  for (std::size_t i = 0; i < parts.size();) {
    std::int64_t count = parts[i].count;
    const std::int64_t row = parts[i].row;
    const auto* forward = parts[i].sequence->slots;
    const Matrix x = scratch.normed, y = scratch.slot_out;
    if (forward != nullptr) {
      (*forward)({slot, parts[i].position, x.slice_rows(row, count), y.slice_rows(row, count)});
      ++i;
      continue;
    }
    for (++i; i < parts.size() && parts[i].sequence->slots == nullptr; ++i) count += parts[i].count;
    mlp(w.mlp, x.slice_rows(row, count), y.slice_rows(row, count), /*accumulate=*/false);
  }
  backend->add(rows_of(scratch.slot_out, rows), 1.0f, rows_of(scratch.residual, rows));
}

void Gpt::Impl::feed_forward(int layer, std::span<const ChunkPart> parts, std::int64_t rows) {
  const auto& w = weights.layers[static_cast<std::size_t>(layer)];
  const Matrix x = rows_of(scratch.residual, rows), normed = rows_of(scratch.normed, rows);
  const int slot = slot_at(layer);
  if (slot >= 0) {
    for (const auto& part : parts) {
      const Matrix kept = part.sequence->kv->slot_residual(static_cast<std::size_t>(slot));
      backend->copy(x.slice_rows(part.row, part.count), kept.slice_rows(part.position, part.count));
    }
  }
  norm(x, w.mlp_norm, w.mlp_norm_bias, normed);
  if (slot >= 0) {
    run_slot(static_cast<std::size_t>(slot), layer, parts, rows);
  } else {
    mlp(w.mlp, normed, x, /*accumulate=*/true);
  }
}

void Gpt::Impl::run(std::span<const ChunkPart> parts, int first, bool from_mlp, bool last_only,
                    Matrix hidden, std::int64_t first_row) {
  const std::int64_t rows = parts.back().row + parts.back().count;
  const int top = config.layers - 1;
  // Nothing above the top layer's attention needs rows that nobody asked for; a slot there does
  // (its state and its cached input).
  const bool narrow =
      (last_only || hidden.data == nullptr) && slot_at(top) < 0 && !(from_mlp && first == top);
  for (int layer = first; layer <= top; ++layer) {
    const bool last_rows = narrow && layer == top;
    if (layer > first || !from_mlp) attend(layer, parts, rows, last_rows);
    if (!last_rows) feed_forward(layer, parts, rows);
  }
  std::int64_t count = rows;
  Matrix x = scratch.residual;
  if (last_only || hidden.data == nullptr) {
    const auto& w = weights.layers[static_cast<std::size_t>(top)];
    x = scratch.last;
    count = std::count_if(parts.begin(), parts.end(), [](const auto& p) { return p.out_row >= 0; });
    if (count == 0 || hidden.data == nullptr) return;
    if (narrow) {
      const Matrix normed = rows_of(scratch.normed, count);
      norm(rows_of(x, count), w.mlp_norm, w.mlp_norm_bias, normed);
      mlp(w.mlp, normed, rows_of(x, count), /*accumulate=*/true);
    } else {
      gather_last(parts, scratch.residual, x);
    }
    first_row = std::find_if(parts.begin(), parts.end(), [](const auto& p) {
                  return p.out_row >= 0;
                })->out_row;
  }
  norm(rows_of(x, count), weights.final_norm, weights.final_norm_bias,
       hidden.slice_rows(first_row, count));
}

Status Gpt::forward(std::span<Sequence> batch, Matrix hidden, bool last_only) {
  MEMSLOT_TRY(impl_->check(batch));
  for (auto& sequence : batch) {
    MEMSLOT_TRY(sequence.kv->reserve(sequence.kv->length() + std::ssize(sequence.tokens)));
  }
  std::int64_t first_row = 0;
  for (const auto& parts : impl_->cut(batch, last_only)) {
    impl_->embed(parts);
    impl_->run(parts, /*first=*/0, /*from_mlp=*/false, last_only, hidden, first_row);
    first_row += parts.back().row + parts.back().count;
  }
  for (auto& sequence : batch) {
    sequence.kv->append_span(std::ssize(sequence.tokens), sequence.memories);
  }
  return ok();
}

Status Gpt::recompute(Sequence& sequence, std::size_t slot, Matrix hidden_last) {
  MEMSLOT_CHECK(sequence.kv != nullptr && slot < impl_->options.slot_layers.size());
  const std::int64_t length = sequence.kv->length();
  const Matrix kept = sequence.kv->slot_residual(slot);
  const int layer = impl_->options.slot_layers[slot];
  for (std::int64_t position = 0; position < length; position += kMaxRows) {
    const std::int64_t count = std::min(kMaxRows, length - position);
    const bool ends = position + count == length;
    impl_->backend->copy(kept.slice_rows(position, count), rows_of(impl_->scratch.residual, count));
    const ChunkPart part{&sequence, 0, count, position, position, ends ? 0 : -1};
    impl_->run({&part, 1}, layer, /*from_mlp=*/true, /*last_only=*/true, hidden_last, 0);
  }
  sequence.kv->relabel_all(sequence.memories);
  return ok();
}

}  // namespace memslot
