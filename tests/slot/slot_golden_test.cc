// The kinds' forward passes against the published implementations (tests/golden/MANIFEST.md).
#include <gtest/gtest.h>

#include <vector>

#include "generator/backend/open_backend.h"
#include "generator/slot/any_memory.h"
#include "shared/base/digest.h"
#include "tests/slot/payloads.h"
#include "tests/support/fixture.h"

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

ConstMatrix matrix(const HostTensor& t) {
  const std::int64_t rows = t.shape[0], cols = t.shape.elements() / rows;
  return {t.values.data(), DType::kF32, rows, cols, cols};
}

class SlotGolden : public ::testing::Test {
 protected:
  SlotGolden() : backend_(open_backend(BackendOptions{"cpu", 2}).value()), scratch_(*backend_) {}

  template <class M>
  std::vector<float> output(const M& memory, const MlpWeights& base, ConstMatrix x,
                            typename M::State& state) {
    std::vector<float> y(static_cast<std::size_t>(x.rows * x.cols));
    const Matrix out{y.data(), DType::kF32, x.rows, x.cols, x.cols};
    memory.forward({*backend_, base, x, out, scratch_}, state);
    return y;
  }

  std::unique_ptr<Backend> backend_;
  SlotScratch scratch_;
};

SlotSignature signature(const Fixture& f, MemoryKind kind, MlpForm form) {
  return signature_of(kind, form, static_cast<std::int32_t>(f.number("d")),
                      static_cast<std::int32_t>(f.number("d_ff")));
}

MlpValues swiglu(const Fixture& f) {
  MlpValues v;
  v.gate = f.tensor("w.gate_proj.weight").values;
  v.up = f.tensor("w.up_proj.weight").values;
  v.down = f.tensor("w.down_proj.weight").values;
  return v;
}

TEST_F(SlotGolden, SwiGluMlpsGiveThePublishedOutput) {
  const auto files = fixtures_matching("mlp_swiglu*.safetensors");
  ASSERT_FALSE(files.empty());
  for (const auto& file : files) {
    const Fixture f = Fixture::open(file);
    const auto payload =
        make_mlp_payload(signature(f, MemoryKind::kMlp, MlpForm::kSwiGlu), DType::kF32, swiglu(f))
            .value();
    const MlpMemory memory = MlpMemory::load(payload, nullptr, *backend_, DType::kF32).value();
    const HostTensor x = f.tensor("x");
    Stateless state;
    expect_close(output(memory, memory.weights(), matrix(x), state), f.tensor("y").values,
                 f.tol_abs(), f.tol_rel(), file);
  }
}

TEST_F(SlotGolden, GeluMlpsGiveThePublishedOutput) {
  const auto files = fixtures_matching("mlp_gelu*.safetensors");
  ASSERT_FALSE(files.empty());
  for (const auto& file : files) {
    const Fixture f = Fixture::open(file);
    MlpValues v;
    v.up = transposed(f.tensor("w.c_fc.weight"));
    v.up_bias = f.tensor("w.c_fc.bias").values;
    v.down = transposed(f.tensor("w.c_proj.weight"));
    v.down_bias = f.tensor("w.c_proj.bias").values;
    const auto payload =
        make_mlp_payload(signature(f, MemoryKind::kMlp, MlpForm::kGeluTanh), DType::kF32, v)
            .value();
    const MlpMemory memory = MlpMemory::load(payload, nullptr, *backend_, DType::kF32).value();
    const HostTensor x = f.tensor("x");
    Stateless state;
    expect_close(output(memory, memory.weights(), matrix(x), state), f.tensor("y").values,
                 f.tol_abs(), f.tol_rel(), file);
  }
}

TEST_F(SlotGolden, LorasGiveThePublishedOutput) {
  const auto files = fixtures_matching("lora*.safetensors");
  ASSERT_FALSE(files.empty());
  for (const auto& file : files) {
    const Fixture f = Fixture::open(file);
    const auto base_payload =
        make_mlp_payload(signature(f, MemoryKind::kMlp, MlpForm::kSwiGlu), DType::kF32, swiglu(f))
            .value();
    const MlpMemory base = MlpMemory::load(base_payload, nullptr, *backend_, DType::kF32).value();
    const auto map = [&](const std::string& name) {
      return LoraValues::Map{f.tensor("w." + name + ".lora_A").values,
                             f.tensor("w." + name + ".lora_B").values};
    };
    LoraValues v;
    v.rank = static_cast<std::int64_t>(f.number("r"));
    v.alpha = f.number("lora_alpha");
    v.gate = map("gate_proj");
    v.up = map("up_proj");
    v.down = map("down_proj");
    const auto payload =
        make_lora_payload(signature(f, MemoryKind::kLora, MlpForm::kSwiGlu), DType::kF32, v)
            .value();
    const LoraMemory memory = LoraMemory::load(payload, nullptr, *backend_, DType::kF32).value();
    const HostTensor x = f.tensor("x");
    Stateless state;
    expect_close(output(memory, base.weights(), matrix(x), state), f.tensor("y").values,
                 f.tol_abs(), f.tol_rel(), file);
  }
}

// The fixture's layer as a memory with slot gate 1 over a base MLP that gives zeros.
struct DeltaLayer {
  MemoryPayload outer, state;
  MlpWeights base;
};

DeltaLayer delta_layer(const Fixture& f, Backend& backend) {
  const auto d = static_cast<std::int32_t>(f.number("d_model"));
  DeltaOuterValues v;
  v.shape = {static_cast<std::int64_t>(f.number("H")), static_cast<std::int64_t>(f.number("K")),
             static_cast<std::int64_t>(f.number("V")), f.has("w.g_proj")};
  v.norm_eps = f.number("norm_eps");
  v.q_proj = f.tensor("w.q_proj").values;
  v.k_proj = f.tensor("w.k_proj").values;
  v.v_proj = f.tensor("w.v_proj").values;
  v.o_proj = f.tensor("w.o_proj").values;
  v.b_proj = f.tensor("w.b_proj").values;
  if (v.shape.output_gate) v.g_proj = f.tensor("w.g_proj").values;
  v.q_conv = f.tensor("w.q_conv").values;
  v.k_conv = f.tensor("w.k_conv").values;
  v.v_conv = f.tensor("w.v_conv").values;
  v.o_norm = f.tensor("w.o_norm").values;
  v.slot_gate.assign(static_cast<std::size_t>(d), 1.0f);
  SlotSignature s = signature_of(MemoryKind::kDelta, MlpForm::kSwiGlu, d, 32);
  MemoryPayload outer = make_delta_outer(s, DType::kF32, v).value();
  s.outer = sha256(outer.bytes());
  MemoryPayload state = make_delta_state(s, v.shape, DeltaStateValues::zero(v.shape)).value();
  MlpWeights base;
  const std::vector<float> zeros(static_cast<std::size_t>(64 * d), 0.0f);
  base.gate_up = pack_values(backend, zeros, 64, d, DType::kF32, Transpose::kNo).value();
  base.down = pack_values(backend, std::span(zeros).first(static_cast<std::size_t>(32 * d)), d, 32,
                          DType::kF32, Transpose::kNo)
                  .value();
  return {std::move(outer), std::move(state), std::move(base)};
}

void expect_state(const Fixture& f, const MemoryPayload& payload, const std::string& prefix) {
  for (const char* name : {"S", "conv_q", "conv_k", "conv_v"}) {
    const HostTensor want = f.tensor(prefix + name);
    const auto got = to_f32(payload.tensor(std::string(name) + ":f32").value());
    expect_close(got, want.values, f.tol_abs(), f.tol_rel(), prefix + name);
  }
}

TEST_F(SlotGolden, DeltaLayersGiveThePublishedOutputAndStates) {
  const auto files = fixtures_matching("delta_rule_layer*.safetensors");
  ASSERT_FALSE(files.empty());
  for (const auto& file : files) {
    SCOPED_TRACE(file);
    const Fixture f = Fixture::open(file);
    const DeltaLayer layer = delta_layer(f, *backend_);
    const auto memory =
        DeltaMemory::load(layer.state, &layer.outer, *backend_, DType::kF32).value();
    const HostTensor x = f.tensor("x");
    DeltaState state = memory.start(*backend_);
    expect_close(output(memory, layer.base, matrix(x), state), f.tensor("y").values, f.tol_abs(),
                 f.tol_rel(), "y");
    expect_state(f, memory.save(*backend_, state).value(), "final.");
    const auto splits = f.numbers("split_points");
    for (std::size_t i = 0; i < splits.size(); ++i) {
      DeltaState part = memory.start(*backend_);
      output(memory, layer.base, matrix(x).slice_rows(0, static_cast<std::int64_t>(splits[i])),
             part);
      expect_state(f, memory.save(*backend_, part).value(), "split" + std::to_string(i) + ".");
    }
  }
}

TEST_F(SlotGolden, ADeltaLayerReadTokenByTokenWithItsStateSavedEverywhereHasThePrefillsBits) {
  if (!backend_->info().row_invariant) GTEST_SKIP() << "SKIPPED: this backend is not row-invariant";
  for (const auto& file : fixtures_matching("delta_rule_layer*.safetensors")) {
    SCOPED_TRACE(file);
    const Fixture f = Fixture::open(file);
    const DeltaLayer layer = delta_layer(f, *backend_);
    const auto memory =
        DeltaMemory::load(layer.state, &layer.outer, *backend_, DType::kF32).value();
    const HostTensor x = f.tensor("x");
    DeltaState whole = memory.start(*backend_);
    const auto prefill = output(memory, layer.base, matrix(x), whole);
    std::vector<float> stepped;
    MemoryPayload saved = memory.save(*backend_, memory.start(*backend_)).value();
    for (std::int64_t t = 0; t < x.shape[0]; ++t) {
      DeltaState state = memory.restore(*backend_, saved).value();
      const auto y = output(memory, layer.base, matrix(x).slice_rows(t, 1), state);
      stepped.insert(stepped.end(), y.begin(), y.end());
      EXPECT_EQ(state.position, t + 1);
      saved = memory.save(*backend_, state).value();
    }
    EXPECT_EQ(stepped, prefill);
    EXPECT_EQ(sha256(saved.bytes()), sha256(memory.save(*backend_, whole).value().bytes()));
  }
}

TEST_F(SlotGolden, TheDeltaRuleGivesThePublishedOutputsAndStates) {
  int checked = 0;
  for (const auto& file : fixtures_matching("delta_rule*.safetensors")) {
    const Fixture f = Fixture::open(file);
    if (!f.has("q") || !f.has("S0")) continue;  // a layer's fixture
    ++checked;
    SCOPED_TRACE(file);
    const HostTensor q = f.tensor("q"), k = f.tensor("k"), v = f.tensor("v"),
                     beta = f.tensor("beta");
    const auto run = [&](std::vector<float> state, const std::string& suffix) {
      std::vector<float> o(v.values.size());
      const std::int64_t cols = v.shape.elements() / v.shape[0];
      backend_->delta_rule(matrix(q), matrix(k), matrix(v), matrix(beta),
                           static_cast<int>(f.number("H")), state.data(),
                           {o.data(), DType::kF32, v.shape[0], cols, cols});
      expect_close(o, f.tensor(suffix.empty() ? "o" : "o" + suffix).values, f.tol_abs(),
                   f.tol_rel(), "o");
      expect_close(state, f.tensor("S_final" + suffix).values, f.tol_abs(), f.tol_rel(), "S");
    };
    const HostTensor start = f.tensor("S0");
    run(std::vector<float>(start.values.size(), 0.0f), "");
    run(start.values, "_from_S0");
  }
  EXPECT_GE(checked, 1);
}

}  // namespace
}  // namespace memslot
