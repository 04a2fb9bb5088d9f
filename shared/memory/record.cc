#include "shared/memory/record.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "shared/base/json_depth.h"
#include "shared/base/json_dump.h"

namespace memslot {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxName = 120;
constexpr std::size_t kMaxSlug = 100;
constexpr std::size_t kMaxJsonBytes = std::size_t{1} << 20;

bool is_name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

// Typed reads of one JSON object; the first failure sticks.
class Fields {
 public:
  Fields(const json& object, std::string_view where) : object_(object), where_(where) {}

  void text(const char* key, std::string& out) {
    if (const json* v = find(key, &json::is_string, "a string")) out = v->get<std::string>();
  }
  void flag(const char* key, bool& out) {
    if (const json* v = find(key, &json::is_boolean, "true or false")) out = v->get<bool>();
  }
  void real(const char* key, double& out) {
    if (const json* v = find(key, &json::is_number, "a number")) out = v->get<double>();
  }
  template <class T>
  void integer(const char* key, T& out) {
    const json* v = find(key, &json::is_number_integer, "an integer");
    if (v == nullptr) return;
    if (v->is_number_unsigned() ? std::in_range<T>(v->get<std::uint64_t>())
                                : std::in_range<T>(v->get<std::int64_t>())) {
      out = v->get<T>();
    } else {
      fail(key, "an integer in range", v->dump());
    }
  }
  // Null where there is none.
  void real(const char* key, std::optional<double>& out) {
    if (!is_null(key)) real(key, out.emplace());
  }
  template <class T>
  void integer(const char* key, std::optional<T>& out) {
    if (!is_null(key)) integer(key, out.emplace());
  }
  // parse: Result<T>(string_view)
  template <class T, class Parse>
  void parsed(const char* key, T& out, Parse parse) {
    const json* v = find(key, &json::is_string, "a string");
    if (v == nullptr) return;
    auto value = parse(std::string_view(v->get_ref<const std::string&>()));
    if (value) {
      out = value.value();
    } else if (status_) {
      status_ = Error{ErrorCode::kCorruption, where_ + " " + key + ": " + value.error().message};
    }
  }
  const json* object(const char* key) { return find(key, &json::is_object, "an object"); }
  Status status() const { return status_; }

 private:
  bool is_null(const char* key) const {
    const auto it = object_.find(key);
    return it != object_.end() && it->is_null();
  }
  const json* find(const char* key, bool (json::*is)() const noexcept, const char* expected) {
    const auto it = object_.find(key);
    if (it == object_.end()) {
      fail(key, expected, "nothing");
    } else if (!((*it).*is)()) {
      fail(key, expected, it->type_name());
    } else {
      return &*it;
    }
    return nullptr;
  }
  void fail(const char* key, std::string_view expected, std::string_view found) {
    if (status_) status_ = corrupt(where_ + " " + key, expected, found);
  }
  const json& object_;
  std::string where_;
  Status status_ = ok();
};

json signature_json(const SlotSignature& s) {
  return {
      {"model", s.model.hex()},        {"layer", s.layer},     {"kind", memory_kind_name(s.kind)},
      {"form", mlp_form_name(s.form)}, {"d_model", s.d_model}, {"d_ff", s.d_ff},
      {"outer", s.outer.hex()}};
}

template <class T>
json or_null(const std::optional<T>& value) {
  return value ? json(*value) : json(nullptr);
}

json stats_json(const LearnStats& s) {
  return {{"nll_before", s.nll_before},
          {"nll_after", s.nll_after},
          {"recall_before", or_null(s.recall_before)},
          {"recall", or_null(s.recall)},
          {"locality", or_null(s.locality)},
          {"wise_min_activation", s.wise_min_activation},
          {"wall_seconds", s.wall_seconds},
          {"steps", or_null(s.steps)},
          {"tokens", s.tokens},
          {"segments", or_null(s.segments)},
          {"config", s.config}};
}

Result<SlotSignature> read_signature(const json& object) {
  SlotSignature s;
  Fields in(object, "version signature");
  in.parsed("model", s.model, &Sha256::parse);
  in.integer("layer", s.layer);
  in.parsed("kind", s.kind, &parse_memory_kind);
  in.parsed("form", s.form, &parse_mlp_form);
  in.integer("d_model", s.d_model);
  in.integer("d_ff", s.d_ff);
  in.parsed("outer", s.outer, &Sha256::parse);
  MEMSLOT_TRY(in.status());
  return s;
}

Result<LearnStats> read_stats(const json& object) {
  LearnStats s;
  Fields in(object, "version stats");
  in.real("nll_before", s.nll_before);
  in.real("nll_after", s.nll_after);
  in.real("recall_before", s.recall_before);
  in.real("recall", s.recall);
  in.real("locality", s.locality);
  in.real("wise_min_activation", s.wise_min_activation);
  in.real("wall_seconds", s.wall_seconds);
  in.integer("steps", s.steps);
  in.integer("tokens", s.tokens);
  in.integer("segments", s.segments);
  in.text("config", s.config);
  MEMSLOT_TRY(in.status());
  return s;
}

}  // namespace

Status check_name(std::string_view what, std::string_view name) {
  const bool good = !name.empty() && name.size() <= kMaxName && name[0] != '.' && name[0] != '-' &&
                    std::all_of(name.begin(), name.end(), is_name_char);
  if (good) return ok();
  const bool long_name = name.size() > kMaxName;
  return invalid(
      what, "1 to 120 of a-z 0-9 . _ -, not starting with . or -",
      long_name ? std::to_string(name.size()) + " characters" : "'" + std::string(name) + "'");
}

std::string slug(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const char lower = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    const char next = is_name_char(lower) ? lower : '-';
    const bool leading = out.empty() && (next == '.' || next == '-');
    const bool repeated = next == '-' && !out.empty() && out.back() == '-';
    if (!leading && !repeated) out.push_back(next);
    if (out.size() == kMaxSlug) break;
  }
  while (!out.empty() && out.back() == '-') out.pop_back();
  return out.empty() ? "x" : out;
}

std::string MemoryRef::text() const {
  return ns + "/" + id + (version == 0 ? "" : "@" + std::to_string(version));
}

Result<MemoryRef> MemoryRef::parse(std::string_view text, std::string_view default_ns) {
  MemoryRef ref;
  const auto slash = text.find('/');
  ref.ns = slash == text.npos ? default_ns : text.substr(0, slash);
  std::string_view rest = slash == text.npos ? text : text.substr(slash + 1);
  if (const auto at = rest.find('@'); at != rest.npos) {
    const auto digits = rest.substr(at + 1);
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), ref.version);
    if (error != std::errc{} || end != digits.data() + digits.size() || ref.version == 0) {
      return invalid("memory version", "a number from 1", "'" + std::string(digits) + "'");
    }
    rest = rest.substr(0, at);
  }
  ref.id = rest;
  MEMSLOT_TRY(check_name("namespace", ref.ns));
  MEMSLOT_TRY(check_name("memory id", ref.id));
  return ref;
}

std::string_view version_origin_name(VersionOrigin origin) {
  switch (origin) {
    case VersionOrigin::kLearned: return "learned";
    case VersionOrigin::kWriteBack: return "write_back";
    case VersionOrigin::kRollback: return "rollback";
    case VersionOrigin::kImported: return "imported";
  }
  return "unknown";
}

Result<VersionOrigin> parse_version_origin(std::string_view name) {
  for (const auto origin : {VersionOrigin::kLearned, VersionOrigin::kWriteBack,
                            VersionOrigin::kRollback, VersionOrigin::kImported}) {
    if (name == version_origin_name(origin)) return origin;
  }
  return invalid("version origin", "learned, write_back, rollback or imported", name);
}

std::string to_json(const MemoryVersion& v) {
  const json object = {{"namespace", v.ref.ns},
                       {"id", v.ref.id},
                       {"version", v.ref.version},
                       {"token", v.token},
                       {"parent", v.parent},
                       {"signature", signature_json(v.signature)},
                       {"dtype", dtype_name(v.dtype)},
                       {"source", v.source},
                       {"origin", version_origin_name(v.origin)},
                       {"origin_id", v.origin_id},
                       {"created_unix_ms", v.created_unix_ms},
                       {"payload_bytes", v.payload_bytes},
                       {"sha256", v.sha256.hex()},
                       {"keys", v.keys},
                       {"stats", stats_json(v.stats)},
                       {"branch", v.branch},
                       {"position", v.position}};
  // Text that is not UTF-8 is replaced rather than thrown at; a NaN becomes null, which parse
  // refuses.
  return dump(object);
}

Result<MemoryVersion> memory_version_from_json(std::string_view text) {
  if (text.size() > kMaxJsonBytes)
    return corrupt("version JSON bytes", "at most 1048576", text.size());
  if (!json_depth_fits(text)) return corrupt("version JSON nesting", "at most 64", "deeper");
  const json object = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return corrupt("version JSON", "one object", "something else");
  MemoryVersion v;
  Fields in(object, "version");
  in.text("namespace", v.ref.ns);
  in.text("id", v.ref.id);
  in.integer("version", v.ref.version);
  in.text("token", v.token);
  in.text("parent", v.parent);
  in.parsed("dtype", v.dtype, &parse_dtype);
  in.text("source", v.source);
  in.parsed("origin", v.origin, &parse_version_origin);
  in.text("origin_id", v.origin_id);
  in.integer("created_unix_ms", v.created_unix_ms);
  in.integer("payload_bytes", v.payload_bytes);
  in.parsed("sha256", v.sha256, &Sha256::parse);
  in.integer("keys", v.keys);
  in.flag("branch", v.branch);
  in.integer("position", v.position);
  const json* signature = in.object("signature");
  const json* stats = in.object("stats");
  MEMSLOT_TRY(in.status());
  MEMSLOT_TRY(v.signature, read_signature(*signature));
  MEMSLOT_TRY(v.stats, read_stats(*stats));
  return v;
}

}  // namespace memslot
