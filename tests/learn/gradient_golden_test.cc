// The learner's own parts against PyTorch: gradients of a tiny model's MLP, and eight AdamW steps.
#include <gtest/gtest.h>

#include <vector>

#include "generator/learn/material.h"
#include "generator/learn/trainer.h"
#include "generator/learn/upper_stack.h"
#include "shared/base/clock.h"
#include "tests/learn/tiny_model.h"

namespace memslot {
namespace {

using namespace testing_support;

std::vector<float> transposed(const HostTensor& t) {
  const auto rows = static_cast<std::size_t>(t.shape[0]),
             cols = static_cast<std::size_t>(t.shape[1]);
  std::vector<float> out(rows * cols);
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < cols; ++c) out[c * rows + r] = t.values[r * cols + c];
  }
  return out;
}

// A fixture with its model, and a trainer that starts from the base MLP of the fixture's layer.
class GoldenTraining {
 public:
  explicit GoldenTraining(const std::string& path)
      : fixture_(Fixture::open(path)),
        layer_(layer()),
        model_(TinyModel::open(folder_of(fixture_), {layer_})),
        gate_(clock_),
        slices_(gate_) {
    std::vector<std::int32_t> ids;
    for (const std::int64_t id : fixture_.ids("ids")) ids.push_back(static_cast<std::int32_t>(id));
    material_ = must(Material::read(*model_.gpt, 0, {ids}, slices_));
    stack_ = must(UpperStack::make(*model_.gpt, model_.file, layer_));
    must(stack_->reserve(material_.rows));
    const auto base = must(base_mlp_values(model_.file, layer_));
    trainer_ = std::make_unique<MlpTrainer>(
        must(MlpTrainer::make({*model_.gpt, model_.file, layer_, material_.rows}, base)));
  }

  const Fixture& fixture() const { return fixture_; }
  MlpTrainer& trainer() { return *trainer_; }
  bool llama() const { return model_.file.config().family == ModelConfig::Family::kLlama; }

  // One forward and backward; the mean loss.
  double step() {
    const std::int64_t rows = material_.rows, d = material_.d_model;
    std::vector<float> x(static_cast<std::size_t>(rows * d)), dx(x.size());
    const Matrix mx{x.data(), DType::kF32, rows, d, d}, mdx{dx.data(), DType::kF32, rows, d, d};
    trainer_->forward(material_.input_rows(0, rows), mx);
    model_.backend->add(material_.residual_rows(0, rows), 1.0f, mx);
    RowLosses losses;
    stack_->gradient(mx, all_rows(material_, 0, 1), losses, mdx, slices_);
    trainer_->backward(material_.input_rows(0, rows), mdx, /*accumulate=*/false);
    trainer_->finish_gradient();
    return mean_nll(losses, 1);
  }

  void adam(int number) {
    ParameterSet& p = trainer_->parameters();
    AdamWStep step;
    step.lr = 1e-3f;
    step.beta2 = 0.95f;
    step.step = number;
    model_.backend->adamw(p.weight.data(), p.gradient.data(), p.m.data(), p.v.data(), p.size(),
                          step);
    must(trainer_->pack());
  }

  // The fixture's tensors of one prefix, in the order of the trainer's parameters.
  std::vector<float> expected(const std::string& prefix) const {
    std::vector<float> all;
    const auto append = [&](const std::vector<float>& v) {
      all.insert(all.end(), v.begin(), v.end());
    };
    const auto plain = [&](const std::string& name) {
      return fixture_.tensor(prefix + name).values;
    };
    if (llama()) {
      append(plain("gate_proj.weight"));
      append(plain("up_proj.weight"));
      append(plain("down_proj.weight"));
    } else {  // Conv1D stores [in, out]
      append(transposed(fixture_.tensor(prefix + "c_fc.weight")));
      append(transposed(fixture_.tensor(prefix + "c_proj.weight")));
      append(plain("c_fc.bias"));
      append(plain("c_proj.bias"));
    }
    return all;
  }

 private:
  int layer() const {
    return fixture_.has_meta("layer") ? static_cast<int>(fixture_.number("layer")) : 2;
  }

  Fixture fixture_;
  int layer_;
  TinyModel model_;
  SystemClock clock_;
  ComputeGate gate_;
  GateSlices slices_;
  Material material_;
  std::unique_ptr<UpperStack> stack_;
  std::unique_ptr<MlpTrainer> trainer_;
};

std::vector<std::string> tiny_fixtures() {
  std::vector<std::string> files = fixtures_matching("llama_tiny*.safetensors");
  for (const auto& file : fixtures_matching("gpt2_tiny*.safetensors")) files.push_back(file);
  return files;
}

TEST(LearnGolden, GradientsOfTheMlpAreThoseOfPyTorch) {
  const auto files = tiny_fixtures();
  ASSERT_GE(files.size(), 2u);
  for (const std::string& file : files) {
    SCOPED_TRACE(file);
    GoldenTraining run(file);
    run.step();
    expect_close(run.trainer().parameters().gradient, run.expected("grad."),
                 run.fixture().tol_abs(), run.fixture().tol_rel(), "gradient");
  }
}

TEST(LearnGolden, EightAdamWStepsFollowPyTorchsLosses) {
  for (const std::string& file : tiny_fixtures()) {
    SCOPED_TRACE(file);
    GoldenTraining run(file);
    std::vector<float> losses;
    for (int step = 1; step <= 8; ++step) {
      losses.push_back(static_cast<float>(run.step()));
      run.adam(step);
    }
    losses.push_back(static_cast<float>(run.step()));
    const auto want = run.fixture().tensor("adam_losses").values;
    expect_close(losses, want, run.fixture().tol_abs(), run.fixture().tol_rel(), "losses");
    EXPECT_LT(losses.back(), losses.front());
    // Adam's first steps have the size of the rate whatever the gradient's, so tiny gradients of
    // either sign part the weights: the fixture's note asks for 1e-4.
    expect_close(run.trainer().parameters().weight, run.expected("after8."), 1e-4, 1e-4, "weights");
  }
}

}  // namespace
}  // namespace memslot
