#pragma once
// A gain table in which the right memory is known: each source has a direction in key space; a
// memory gains on its own source's text only, and hurts elsewhere.
#include <cmath>
#include <string>

#include "rl/gain_table.h"
#include "shared/base/rng.h"

namespace memslot::testing_support {

struct SyntheticOptions {
  std::size_t train = 10, validation = 3, test = 4;  // sources with memories
  std::size_t uncovered = 4;                         // sources without, in every split's streams
  std::size_t memories_each = 2;
  std::size_t streams_each = 6;  // a source
  std::uint32_t dim = 24;
  float noise = 0.35f;  // of hidden summaries around their source's direction
  std::uint64_t seed = 1;
  bool all_kinds = false;                    // prompts, continuations and control text, too
  std::string model = std::string(64, 'a');  // digest
};

class SyntheticTable {
 public:
  explicit SyntheticTable(SyntheticOptions options = {}) : o_(options) {
    t_.model = o_.model;
    t_.layer = 22;
    t_.seed = o_.seed;
    add_sources(o_.train, Split::kTrain, true);
    add_sources(o_.validation, Split::kValidation, true);
    add_sources(o_.test, Split::kTest, true);
    add_sources(o_.uncovered, Split::kTrain, false);
    for (std::size_t s = 0; s < t_.sources.size(); ++s) {
      for (std::size_t m = 0; t_.sources[s].has_memory && m < o_.memories_each; ++m)
        add_memory(s, m);
    }
    for (std::size_t s = 0; s < t_.sources.size(); ++s) {
      for (std::size_t i = 0; t_.sources[s].has_memory && i < o_.streams_each; ++i)
        add_stream(s, i);
    }
    if (o_.all_kinds) add_other_kinds();
    finish();
  }
  GainTable take() { return std::move(t_); }

 private:
  float noise() {
    // Box and Muller.
    const double u = 1.0 - uniform01(o_.seed, 1, at_++), v = uniform01(o_.seed, 1, at_++);
    return static_cast<float>(std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * v));
  }
  std::size_t below(std::size_t n) { return uniform_below(n, o_.seed, 2, at_++); }

  void add_sources(std::size_t count, Split split, bool has_memory) {
    for (std::size_t i = 0; i < count; ++i) {
      std::string name = "s";
      name += std::to_string(t_.sources.size());
      t_.sources.push_back({name, split, has_memory});
      for (std::uint32_t d = 0; d < o_.dim; ++d) directions_.push_back(noise());
    }
  }
  void near(std::size_t source, float spread, std::vector<float>& out) {
    for (std::uint32_t d = 0; d < o_.dim; ++d) {
      out.push_back(directions_[source * o_.dim + d] + spread * noise());
    }
  }
  void add_memory(std::size_t source, std::size_t part) {
    TableMemory m;
    m.ref.ns = "default";
    m.ref.id = t_.sources[source].name + "-";
    m.ref.id += std::to_string(part);
    m.ref.version = 1;
    m.source = static_cast<std::int32_t>(source);
    m.first_key = static_cast<std::uint32_t>(t_.keys.values.size() / o_.dim);
    m.keys = 8;
    m.wise_min_activation = 1.0f;
    for (int k = 0; k < 8; ++k) near(source, 0.3f, t_.keys.values);
    t_.memories.push_back(std::move(m));
  }
  // A walk through the stream's own source, others of its split and uncovered ones.
  void add_stream(std::size_t source, std::size_t number) {
    TableStream s;
    s.split = t_.sources[source].split;
    s.id = t_.sources[source].name + ".";
    s.id += std::to_string(number);
    s.first = t_.hidden.values.size() / o_.dim;
    std::size_t now = source;
    for (std::size_t passage = 0; passage < 5; ++passage) {
      const std::size_t steps = 2 + below(5);
      for (std::size_t i = 0; i < steps; ++i) add_step(now, s);
      do {
        now =
            below(4) == 0 ? t_.sources.size() - 1 - below(o_.uncovered) : below(t_.sources.size());
      } while (t_.sources[now].has_memory && t_.sources[now].split != s.split);
    }
    t_.streams.push_back(std::move(s));
  }
  // Two of each kind in every split.
  void add_other_kinds() {
    for (std::size_t source = 0; source + o_.uncovered < t_.sources.size(); ++source) {
      if (source >= 2 && t_.sources[source - 2].split == t_.sources[source].split) continue;
      for (const auto& [kind, name] : {std::pair(StreamKind::kPrompt, "prompt."),
                                       std::pair(StreamKind::kContinuation, "continuation."),
                                       std::pair(StreamKind::kControl, "control.")}) {
        TableStream s;
        s.kind = kind;
        s.split = t_.sources[source].split;
        s.id = name + std::to_string(source);
        s.first = t_.hidden.values.size() / o_.dim;
        const bool control = kind == StreamKind::kControl;
        for (int i = 0; i < 4; ++i) add_step(control ? t_.sources.size() - 1 : source, s);
        for (TableStep& step : s.steps) step.source = control ? -1 : step.source;
        t_.streams.push_back(std::move(s));
      }
    }
  }
  void add_step(std::size_t source, TableStream& stream) {
    near(source, o_.noise, t_.hidden.values);
    t_.entropy.values.push_back(3.0f + 0.2f * noise());
    t_.surprise.values.push_back(3.0f + 0.2f * noise());
    for (const TableMemory& m : t_.memories) {
      const bool own = m.source == static_cast<std::int32_t>(source);
      const bool first = m.ref.id.back() == '0';
      const float gain = own ? (first ? 0.9f : 0.6f) : -0.25f;
      t_.gain.values.push_back(gain + 0.15f * noise());
      t_.entropy.values.push_back((own ? 2.2f : 3.1f) + 0.2f * noise());
      t_.surprise.values.push_back((own ? 2.1f : 3.2f) + 0.2f * noise());
      t_.activation.values.push_back((own ? 1.3f : 0.7f) + 0.2f * std::abs(noise()));
    }
    stream.steps.push_back({16, static_cast<std::int32_t>(source), t_.sources[source].has_memory});
  }
  void finish() {
    const auto rows = static_cast<std::int64_t>(t_.hidden.values.size() / o_.dim);
    const auto m = static_cast<std::int64_t>(t_.memories.size());
    t_.hidden.shape = Shape{rows, o_.dim};
    t_.gain.shape = t_.activation.shape = Shape{rows, m};
    t_.entropy.shape = t_.surprise.shape = Shape{rows, m + 1};
    t_.keys.shape = Shape{static_cast<std::int64_t>(t_.keys.values.size() / o_.dim), o_.dim};
    t_.generic = draw_generic(t_, 8, o_.seed);
  }

  SyntheticOptions o_;
  std::uint64_t at_ = 0;
  std::vector<float> directions_;
  GainTable t_;
};

}  // namespace memslot::testing_support
