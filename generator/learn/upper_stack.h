#pragma once
// The frozen layers above a slot, for learning: losses of a batch, and the gradient of the loss
// with respect to the residual stream that leaves the slot's layer.
//
//   x = residual + slot(norm(residual));  layers l+1 .. L-1;  norm;  logits;  loss = sum_i w_i
//   nll_i
//
// The forward operations are those of the model itself, row by row the same bits. Backward needs
// each map packed a second time, transposed (the workspace's larger part); nothing is needed below
// the slot. The output layer and its loss are done in one pass over blocks of the vocabulary, so
// that neither logits nor their gradient ever exist as a whole. With m, Z the running maximum and
// sum of a row's online softmax (backend.h) and W_v the output layer's row v:
//
//   a = sum over v but the target of e^(x_v - m) W_v     each block: a *= rescale, then a += e W
//   d loss / d hidden = w_i (a / Z + (p_target - 1) W_target)
//
// Errors:  make() and reserve(): kNoSpace, and what the model file answers. Losses cannot fail.
// Threads: one at a time; the compute gate is given back between layers and blocks.
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "generator/learn/gate_slices.h"
#include "generator/learn/workspace.h"
#include "generator/model/gpt.h"

namespace memslot {

// The rows of a batch: sequences one after the other, each read from position 0.
struct LossRows {
  std::vector<std::int64_t> lengths;
  std::vector<std::int32_t> targets;  // the next token of each row; -1: not counted
  std::vector<float> weights;         // w_i; only gradient() reads them

  std::int64_t rows() const { return static_cast<std::int64_t>(targets.size()); }
  std::int64_t longest() const;
};

struct RowLosses {
  std::vector<float> nll;  // nats; 0 where not counted
  std::vector<std::int32_t> argmax;
};

class UpperStack {
 public:
  // `layer`: the slot's. `file` gives the weights for the transposed copies.
  static Result<std::unique_ptr<UpperStack>> make(Gpt& gpt, const ModelFile& file, int layer);

  // Room for batches of at most `rows` rows.
  Status reserve(std::int64_t rows);

  // x (rows, D) f32, overwritten.
  void losses(Matrix x, const LossRows& batch, RowLosses& out, GateSlices& gate);
  // Also dx (rows, D) f32 = d loss / d x. dx may not be x.
  void gradient(Matrix x, const LossRows& batch, RowLosses& out, Matrix dx, GateSlices& gate);

  std::size_t bytes() const;

  static constexpr std::int64_t kHeadColumns = 2048;

 private:
  struct Transposed {
    std::shared_ptr<const PackedWeight> qkv, attn_out, gate_up, down;
    std::size_t bytes() const {
      return qkv->bytes() + attn_out->bytes() + gate_up->bytes() + down->bytes();
    }
  };
  struct HeadBlock {  // columns [first, first + forward->outputs()) of the logits
    std::int64_t first = 0;
    std::shared_ptr<const PackedWeight> forward, transposed;
  };
  struct Saved {  // of one layer: what its backward reads
    Matrix x, qkv, h, wide;
  };

  UpperStack(Gpt& gpt, int layer) : gpt_(gpt), layer_(layer), space_(gpt.backend()) {}
  Status load(const ModelFile& file);
  Status load_head(const ModelFile& file);
  int upper() const { return gpt_.config().layers - 1 - layer_; }
  Saved saved(int upper_index, std::int64_t rows) const;
  std::vector<AttentionSpan> spans(const LossRows& batch) const;
  void forward_layer(int l, Matrix x, Saved* keep, const std::vector<AttentionSpan>& spans,
                     GateSlices& gate);
  void backward_layer(int l, const Saved& saved, Matrix dx, const std::vector<AttentionSpan>& spans,
                      GateSlices& gate);
  // Losses of the rows; with `dx`, also the gradient with respect to x.
  void head(ConstMatrix x, const LossRows& batch, RowLosses& out, const Matrix* dx,
            GateSlices& gate);
  // dhidden holds `a` above and ends as the gradient.
  void finish_head(const LossRows& batch, const std::vector<SoftmaxRow>& rows, Matrix dhidden);
  void norm_backward(ConstMatrix x, const Buffer& weight, ConstMatrix dy, Matrix dx);

  Gpt& gpt_;
  int layer_;
  Workspace space_;
  std::int64_t reserved_ = 0;
  std::vector<Transposed> transposed_;
  std::vector<HeadBlock> head_;
};

}  // namespace memslot
