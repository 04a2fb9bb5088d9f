#pragma once
// The trained parameters of one memory: f32 masters, gradients and Adam moments in one array each,
// and the packed copies that the matrix products read.
//
//   forward(x, y)       y = the memory's output for the rows of x, keeping what backward needs
//   backward(x, dy)     gradients of the parameters for the same rows, written or added
//   finish_gradient()   after the step's last backward()
//   pack()              after AdamW has changed the masters: the packed copies again
//
// Activations that enter products are in the model's activation type; sums are f32. The gradient
// with respect to x is not computed: nothing below the slot is trained.
//
// Threads: one at a time; make(), pack() and payload() compute nothing on the backend but packing,
// and so
//          may run while another thread computes.
#include <memory>
#include <span>
#include <variant>
#include <vector>

#include "generator/learn/workspace.h"
#include "generator/model/gpt.h"
#include "shared/memory/layout/lora.h"
#include "shared/memory/layout/mlp.h"

namespace memslot {

// A flat array of parameters cut into named matrices [rows, cols].
class ParameterSet {
 public:
  struct Part {
    std::int64_t rows = 0, cols = 0;
    std::size_t offset = 0;
  };
  // Adds a part with these values; its index.
  std::size_t add(std::int64_t rows, std::int64_t cols, std::span<const float> values);

  std::int64_t size() const { return static_cast<std::int64_t>(weight.size()); }
  const Part& part(std::size_t i) const { return parts_.at(i); }
  std::span<const float> values(std::size_t i) const;
  Matrix gradient_of(std::size_t i);
  std::size_t bytes() const { return 4 * weight.size() * sizeof(float); }

  std::vector<float> weight, gradient, m, v;

 private:
  std::vector<Part> parts_;
};

// What both kinds need to know of the slot.
struct TrainerSlot {
  Gpt& gpt;
  const ModelFile& file;
  int layer = 0;
  std::int64_t rows = 0;  // the most that forward() will get
};

class MlpTrainer {
 public:
  static Result<MlpTrainer> make(const TrainerSlot& slot, const MlpValues& start);

  Status pack();
  void forward(ConstMatrix x, Matrix y);
  void backward(ConstMatrix x, ConstMatrix dy, bool accumulate);
  void finish_gradient() {}
  ParameterSet& parameters() { return set_; }
  Result<MemoryPayload> payload(const SlotSignature& signature, DType dtype) const;
  std::size_t bytes() const;

 private:
  enum Place : std::size_t { kWide, kGated, kDy, kDGated, kDWide, kOnes };
  explicit MlpTrainer(Gpt& gpt) : gpt_(&gpt), space_(gpt.backend()) {}
  Status make_ones(std::int64_t rows, DType dtype);
  std::int64_t wide_cols() const { return gated_ ? 2 * f_ : f_; }

  Gpt* gpt_;
  Workspace space_;
  ParameterSet set_;
  bool gated_ = true;
  std::int64_t d_ = 0, f_ = 0;
  std::size_t gate_up_ = 0, down_ = 0, up_bias_ = 0, down_bias_ = 0;  // parts
  MlpWeights weights_;
  std::shared_ptr<const PackedWeight> down_transposed_;
};

class LoraTrainer {
 public:
  static Result<LoraTrainer> make(const TrainerSlot& slot, const LoraValues& start);

  Status pack();
  void forward(ConstMatrix x, Matrix y);
  void backward(ConstMatrix x, ConstMatrix dy, bool accumulate);
  void finish_gradient();
  ParameterSet& parameters() { return set_; }
  Result<MemoryPayload> payload(const SlotSignature& signature, DType dtype) const;
  std::size_t bytes() const;

 private:
  enum Place : std::size_t {
    kWide,
    kGated,
    kDy,
    kDGated,
    kDWide,
    kLowIn,
    kLowDown,
    kDLow,
    kDLowF32
  };
  struct Map {  // one corrected linear map; parts of set_, and packed forms
    std::size_t a = 0, b = 0;
    std::shared_ptr<const PackedWeight> a_packed, b_packed, a_transposed, b_transposed;
  };
  explicit LoraTrainer(Gpt& gpt) : gpt_(&gpt), space_(gpt.backend()) {}
  Map add_map(const LoraValues::Map& start, std::int64_t inputs, std::int64_t outputs);
  Status pack_map(Map& map, bool need_a_transposed);
  // Gradients of one map, of which `low` = x A^T was kept and dy is known; leaves d low in kDLow.
  void map_backward(const Map& map, ConstMatrix x, ConstMatrix low, ConstMatrix dy,
                    bool accumulate);
  Matrix low_in(std::int64_t rows, int which) const;

  Gpt* gpt_;
  Workspace space_;
  ParameterSet set_;
  const MlpWeights* base_ = nullptr;
  std::shared_ptr<const PackedWeight> base_down_transposed_;
  bool gated_ = true;
  std::int64_t d_ = 0, f_ = 0, rank_ = 0;
  double alpha_ = 0;
  Map gate_, up_, down_;
};

using AnyTrainer = std::variant<MlpTrainer, LoraTrainer>;

// The base MLP's values, from the model file.
Result<MlpValues> base_mlp_values(const ModelFile& file, int layer);
// A from a uniform distribution as peft draws it (Kaiming, a = sqrt 5: bound 1 / sqrt(inputs)), B =
// 0.
LoraValues fresh_lora(const ModelConfig& config, std::int64_t rank, double alpha,
                      std::uint64_t seed);

}  // namespace memslot
