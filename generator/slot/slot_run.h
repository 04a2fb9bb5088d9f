#pragma once
// What a kind's forward pass gets: the rows, the base MLP they would otherwise meet, and scratch.
//
// Threads: one at a time.
#include "generator/backend/backend.h"
#include "generator/model/gpt.h"
#include "generator/slot/scratch.h"
#include "shared/memory/payload.h"

namespace memslot {

struct SlotRun {
  Backend& backend;
  const MlpWeights& base;
  ConstMatrix x;  // (rows, D), rows <= kSlotRows, in the activation type of the weights
  Matrix y;       // (rows, D) f32, to be written
  SlotScratch& scratch;
};

// The state of a kind whose parameters do not change while it runs.
struct Stateless {};

// y = the MLP with these weights; the same operations, hence the same bits, as the model's own.
// Uses scratch places 0 and 1.
void run_mlp(const SlotRun& run, const MlpWeights& weights);

// Packs a host matrix (rows, cols) given as f32 values.
Result<std::shared_ptr<const PackedWeight>> pack_values(Backend& backend,
                                                        std::span<const float> values,
                                                        std::int64_t rows, std::int64_t cols,
                                                        DType dtype, Transpose transpose);
// An f32 buffer with these values; empty for none.
Result<Buffer> upload_values(Backend& backend, std::span<const float> values);

}  // namespace memslot
