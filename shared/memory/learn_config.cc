#include "shared/memory/learn_config.h"

#include <array>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "shared/base/json_depth.h"
#include "shared/base/json_dump.h"

namespace memslot {
namespace {

using nlohmann::json;

std::string_view layout_name(SegmentLayout layout) {
  return layout == SegmentLayout::kOverlap ? "overlap" : "cumulative";
}

// One line per number: parsing, printing and the limits come from the same place.
struct NumberField {
  std::string_view name;
  double low, high;
  bool whole;
  double (*get)(const LearnConfig&);
  void (*set)(LearnConfig&, double);
};

#define MEMSLOT_LEARN_FIELD(field, low, high, whole)                         \
  NumberField {                                                              \
#field, low, high, whole,                                                  \
        [](const LearnConfig& c) { return static_cast<double>(c.field); },     \
        [](LearnConfig& c, double v) {                                         \
          c.field = static_cast<std::remove_reference_t<decltype(c.field)>>(v); \
        } \
  }

constexpr std::array kNumbers = {
    MEMSLOT_LEARN_FIELD(window_words, 4, 512, true),
    MEMSLOT_LEARN_FIELD(stride_words, 1, 512, true),
    MEMSLOT_LEARN_FIELD(layer, -1, 1023, true),
    MEMSLOT_LEARN_FIELD(rank, 1, 256, true),
    MEMSLOT_LEARN_FIELD(alpha, 1e-6, 1e6, false),
    MEMSLOT_LEARN_FIELD(lr, 0, 1, false),
    MEMSLOT_LEARN_FIELD(max_steps, 0, 10000, true),
    MEMSLOT_LEARN_FIELD(warmup_share, 0, 1, false),
    MEMSLOT_LEARN_FIELD(target_recall, 0, 1, false),
    MEMSLOT_LEARN_FIELD(anchor, -1, 1e6, false),
    MEMSLOT_LEARN_FIELD(alone_share, -1, 1, false),
    MEMSLOT_LEARN_FIELD(weight_decay, 0, 10, false),
    MEMSLOT_LEARN_FIELD(seed, 0, 9007199254740992.0, true),
};
#undef MEMSLOT_LEARN_FIELD

Error bad(std::string_view name, const std::string& expected, const json& found) {
  return invalid("learn option '" + std::string(name) + "'", expected, dump_start(found, 80));
}

Status set_number(const NumberField& field, const json& value, LearnConfig& config) {
  const std::string expected = std::string(field.whole ? "a whole number" : "a number") + " from " +
                               json(field.low).dump() + " to " + json(field.high).dump();
  if (!value.is_number()) return bad(field.name, expected, value);
  const double v = value.get<double>();
  if (!std::isfinite(v) || v < field.low || v > field.high) return bad(field.name, expected, value);
  if (field.whole && v != std::floor(v)) return bad(field.name, expected, value);
  // 0 often stands for the default: what is too small for an f32 must not turn into it.
  if (v != 0 && static_cast<float>(v) == 0.0f) return bad(field.name, expected, value);
  field.set(config, v);
  return ok();
}

Status set_text(std::string_view name, const json& value, LearnConfig& config) {
  if (!value.is_string()) return bad(name, "a string", value);
  const auto& text = value.get_ref<const std::string&>();
  if (name == "kind") {
    MEMSLOT_TRY(config.kind, parse_memory_kind(text));
    const bool learned = config.kind == MemoryKind::kMlp || config.kind == MemoryKind::kLora ||
                         config.kind == MemoryKind::kDelta;
    return learned ? ok() : Status(bad(name, "mlp, lora or delta", value));
  }
  if (name == "segments") {
    if (text != "overlap" && text != "cumulative") return bad(name, "overlap or cumulative", value);
    config.segments = text == "overlap" ? SegmentLayout::kOverlap : SegmentLayout::kCumulative;
    return ok();
  }
  if (text != "f32" && text != "bf16") return bad(name, "f32 or bf16", value);
  config.dtype = text == "f32" ? DType::kF32 : DType::kBF16;
  return ok();
}

Status set_field(const std::string& name, const json& value, LearnConfig& config) {
  if (name == "kind" || name == "segments" || name == "dtype") return set_text(name, value, config);
  for (const NumberField& field : kNumbers) {
    if (field.name == name) return set_number(field, value, config);
  }
  return invalid("learn option", "a known name", "'" + name.substr(0, 80) + "'");
}

// The shortest decimal that gives the same f32 again, as a number: 0.001, not
// 0.0010000000474974513.
json shortest(float value) {
  std::array<char, 32> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  return json::parse(text.data(), end);
}

}  // namespace

Result<LearnConfig> learn_config_from_json(std::string_view text) {
  if (text.empty()) return LearnConfig{};
  if (!json_depth_fits(text)) return invalid("learn options nesting", "at most 64", "deeper");
  const json parsed = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object()) return invalid("learn options", "a JSON object", text.substr(0, 80));
  LearnConfig config;
  for (const auto& [name, value] : parsed.items()) {
    MEMSLOT_TRY(set_field(name, value, config));
  }
  if (config.stride_words > config.window_words) {
    return invalid("learn option 'stride_words'",
                   "at most window_words (" + std::to_string(config.window_words) + ")",
                   config.stride_words);
  }
  return config;
}

std::string to_json(const LearnConfig& config) {
  json out = {{"kind", memory_kind_name(config.kind)},
              {"segments", layout_name(config.segments)},
              {"dtype", dtype_name(config.dtype)}};
  for (const NumberField& field : kNumbers) {
    const double v = field.get(config);
    if (field.whole) {
      out[std::string(field.name)] = static_cast<std::int64_t>(v);
    } else {
      out[std::string(field.name)] = shortest(static_cast<float>(v));
    }
  }
  return out.dump();
}

}  // namespace memslot
