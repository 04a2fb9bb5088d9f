// Admin: the verbs "trace.*" of docs/formats/tasks.md, and what a replay is told.
#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>

#include "controller/link/admin.h"
#include "controller/link/arguments.h"
#include "controller/replay/decision_check.h"
#include "controller/replay/policy_choices.h"
#include "controller/trace/trace_json.h"
#include "shared/base/json_dump.h"
#include "shared/wire/names.h"

namespace memslot {
namespace {

constexpr std::uint64_t kMostListed = 10000;
constexpr std::uint64_t kMostSteps = 512;
constexpr std::array<std::string_view, 5> kVerbs = {"trace.show", "trace.rm", "trace.export",
                                                    "trace.check", "trace.choices"};

// A memory's name without its version.
std::string plain(const MemoryRef& ref) { return ref.ns + "/" + ref.id; }

std::string checked_json(const DecisionReport& report) {
  using Json = nlohmann::ordered_json;
  Json others = Json::array();
  for (const DecisionReport::Other& other : report.others) {
    others.push_back({{"step", other.step}, {"slot", other.slot}, {"what", other.what}});
  }
  const Json out = {{"decisions", report.decisions},
                    {"checked", report.checked},
                    {"others", std::move(others)},
                    {"unchecked", report.unchecked}};
  return dump(out);
}

std::string choices_json(const std::string& id, const std::string& policy,
                         const PolicyChoices& found) {
  using Json = nlohmann::ordered_json;
  Json choices = Json::array();
  for (const PolicyChoices::Change& change : found.changes) {
    choices.push_back(
        {{"step", change.step}, {"slot", change.slot}, {"memory", memory_name(change.memory)}});
  }
  const Json out = {{"trace", id},
                    {"policy", policy},
                    {"decisions", found.decisions},
                    {"otherwise", found.otherwise},
                    {"choices", std::move(choices)},
                    {"notes", found.notes}};
  return dump(out);
}

// A trace that can be gone through step by step: without damage or gap.
Result<trace::Trace> whole_trace(const std::string& id, std::span<const std::byte> bytes) {
  MEMSLOT_TRY(trace::Trace out, trace::read_trace(bytes));
  if (out.damage) return out.damage->with_context("trace " + id);
  for (std::size_t i = 0; i < out.steps.size(); ++i) {
    if (out.steps[i].step == i) continue;
    return corrupt("trace " + id + ": steps without a gap", i, out.steps[i].step);
  }
  return out;
}

}  // namespace

Result<TraceSummary> Admin::visible_trace(const Access& access, const std::string& id) const {
  MEMSLOT_TRY(TraceSummary summary, p_.traces.summary(id));
  if (!access.sees_all(summary.namespaces)) {
    return Error{ErrorCode::kNotFound, "trace " + id + ": expected one that is kept, found none"};
  }
  return summary;
}

Result<Admin::Job> Admin::list_traces(const Access& access, Arguments& arguments) {
  TraceQuery query;
  MEMSLOT_TRY(const auto memory, arguments.text_if("memory"));
  MEMSLOT_TRY(const auto source, arguments.text_if("source"));
  MEMSLOT_TRY(const auto policy, arguments.text_if("policy"));
  MEMSLOT_TRY(const auto after, arguments.text_if("after"));
  MEMSLOT_TRY(const std::uint64_t since, arguments.number_or("since_unix_ms", 0));
  MEMSLOT_TRY(const std::uint64_t until, arguments.number_or("until_unix_ms", 1ULL << 62));
  MEMSLOT_TRY(query.limit, arguments.number_or("limit", 100));
  MEMSLOT_TRY(arguments.finish());
  if (query.limit < 1 || query.limit > kMostListed) {
    return invalid("limit", "1 to 10000", query.limit);
  }
  std::optional<MemoryRef> named;
  if (memory) {
    MEMSLOT_TRY(named, MemoryRef::parse(*memory));
  }
  query.policy = policy.value_or("");
  query.after = after.value_or("");
  query.since_unix_ms = static_cast<std::int64_t>(std::min<std::uint64_t>(since, 1ULL << 62));
  query.until_unix_ms = static_cast<std::int64_t>(std::min<std::uint64_t>(until, 1ULL << 62));
  query.visible = [access](const std::vector<std::string>& namespaces) {
    return access.sees_all(namespaces);
  };
  return Job([=, this]() mutable -> Result<Answer> {
    std::set<std::string> wanted;  // NS/ID
    if (named) wanted.insert(plain(*named));
    if (source) {
      const auto of_source = memories_of(*source, access);
      if (named)
        std::erase_if(wanted, [&](const auto& name) { return !of_source.contains(name); });
      else
        wanted = of_source;
    }
    if (named || source) {
      query.memories = [wanted](const std::set<std::string>& used) {
        return std::ranges::any_of(used, [&](const auto& name) { return wanted.contains(name); });
      };
    }
    const auto found = p_.traces.list(query);
    const bool more = found.size() == query.limit;
    return Answer{
        .json = trace_json::list(found, more ? found.back().id : ""), .part = {}, .changed = {}};
  });
}

// Of the heads, as they are now.
std::set<std::string> Admin::memories_of(const std::string& source, const Access& access) const {
  CatalogQuery query;
  query.namespaces = access.seen(p_.keeper.catalog().namespaces());
  query.source = source;
  query.limit = std::numeric_limits<std::size_t>::max();
  std::set<std::string> out;
  for (const CatalogRow& row : p_.keeper.catalog().find(query).rows) {
    out.insert(row.ns + "/" + row.id);
  }
  return out;
}

// What another policy would have chosen: nothing is published, so that whoever sees the trace may
// ask, also with a checkpoint of their own.
Result<Admin::Job> Admin::other_choices(const std::string& id, Arguments& arguments,
                                        SharedBytes checkpoint) {
  MEMSLOT_TRY(const auto spec, arguments.text_if("policy"));
  MEMSLOT_TRY(arguments.finish());
  if (spec.has_value() == (checkpoint != nullptr)) {
    return invalid("trace.choices", "either policy or a checkpoint as part 0",
                   spec ? "both" : "neither");
  }
  return Job([=, this]() -> Result<Answer> {
    MEMSLOT_TRY(const auto bytes, p_.traces.bytes(id));
    MEMSLOT_TRY(const trace::Trace trace, whole_trace(id, bytes));
    AskedPolicy policy;
    if (spec) {
      MEMSLOT_TRY(policy, policy_of_spec(*spec, p_.learned.shelf, quick_end()));
    } else {
      const std::string text(reinterpret_cast<const char*>(checkpoint->data()), checkpoint->size());
      MEMSLOT_TRY(policy, policy_of_checkpoint(text, p_.learned.shelf->engine()));
    }
    MEMSLOT_TRY(const auto found, choices_of(policy, trace, p_.bank, p_.clock, quick_end()));
    return text_answer(choices_json(id, policy.spec, found));
  });
}

Result<Admin::Job> Admin::trace_verb(const Peer& client, const wire::AdminRequest& admin,
                                     SharedBytes file) {
  MEMSLOT_TRY(Arguments arguments, Arguments::parse(admin.arguments));
  if (!p_.traces.keeps()) {
    return Error{ErrorCode::kUnavailable,
                 "traces: expected a controller that keeps them (--traces), found one that does "
                 "not"};
  }
  if (admin.verb == "trace.ls") return list_traces(client.access, arguments);
  if (std::ranges::find(kVerbs, admin.verb) == kVerbs.end()) {
    return invalid("verb", "one of docs/formats/tasks.md", admin.verb);
  }
  MEMSLOT_TRY(const std::string id, arguments.text("trace"));
  MEMSLOT_TRY(const TraceSummary summary, visible_trace(client.access, id));
  if (admin.verb == "trace.choices") return other_choices(id, arguments, std::move(file));
  std::uint64_t from = 0, steps = 0;
  bool candidates = true;
  if (admin.verb == "trace.show") {
    MEMSLOT_TRY(from, arguments.number_or("from", 0));
    MEMSLOT_TRY(steps, arguments.number_or("steps", 128));
    MEMSLOT_TRY(candidates, arguments.flag_or("candidates", true));
    if (steps < 1 || steps > kMostSteps) return invalid("steps", "1 to 512", steps);
  }
  MEMSLOT_TRY(arguments.finish());
  if (admin.verb == "trace.rm") {
    return Job([=, this]() -> Result<Answer> {
      MEMSLOT_TRY(p_.traces.erase(id));
      return Answer{.json = R"({"erased":")" + id + "\"}", .part = {}, .changed = {}};
    });
  }
  return Job([=, this]() -> Result<Answer> {
    MEMSLOT_TRY(auto bytes, p_.traces.bytes(id));
    if (admin.verb == "trace.export") {
      return Answer{.json = R"({"trace":")" + id + "\"}",
                    .part = share_bytes(std::move(bytes)),
                    .changed = {}};
    }
    MEMSLOT_TRY(const trace::Trace whole, trace::read_trace(bytes));
    if (admin.verb == "trace.check") {
      return Answer{
          .json = checked_json(check_decisions(whole, p_.learned.shelf, p_.bank, quick_end())),
          .part = {},
          .changed = {}};
    }
    return Answer{.json = trace_json::show(summary, whole, from, steps, candidates),
                  .part = {},
                  .changed = {}};
  });
}

Result<wire::SubmitTask> Admin::replay_task(const Peer& client,
                                            const wire::SubmitTask& task) const {
  MEMSLOT_TRY(Arguments arguments, Arguments::parse(task.arguments));
  MEMSLOT_TRY(const std::string id, arguments.text("trace"));
  MEMSLOT_TRY(const std::string what_if, arguments.object_or("what_if", ""));
  MEMSLOT_TRY(arguments.finish());
  MEMSLOT_TRY(const TraceSummary summary, visible_trace(client.access, id));
  MEMSLOT_TRY(const auto bytes, p_.traces.bytes(id));
  MEMSLOT_TRY(const trace::Trace whole, whole_trace(id, bytes));
  return wire::SubmitTask{"replay", trace_json::replay_arguments(summary, whole, what_if)};
}

}  // namespace memslot
