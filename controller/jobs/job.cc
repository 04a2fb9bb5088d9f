#include "controller/jobs/job.h"

#include <array>
#include <nlohmann/json.hpp>

#include "shared/base/json_depth.h"
#include "shared/base/json_dump.h"
#include "shared/memory/learn_config.h"

namespace memslot {
namespace {

constexpr std::array<std::pair<JobState, std::string_view>, 5> kNames = {
    {{JobState::kQueued, "queued"},
     {JobState::kLeased, "leased"},
     {JobState::kDone, "done"},
     {JobState::kFailed, "failed"},
     {JobState::kCancelled, "cancelled"}}};

// A config of before options were checked at submission: the generator will say what is wrong.
int layer_of(const std::string& config) {
  const auto read = learn_config_from_json(config);
  return read ? read.value().layer : -1;
}

}  // namespace

std::string_view job_state_name(JobState state) {
  for (const auto& [value, name] : kNames) {
    if (value == state) return name;
  }
  return "unknown";
}

Result<JobState> parse_job_state(std::string_view name) {
  for (const auto& [value, known] : kNames) {
    if (known == name) return value;
  }
  return invalid("job state", "queued, leased, done, failed or cancelled", name);
}

std::string to_json(const Job& job) {
  nlohmann::ordered_json j;
  j["job"] = job.id;
  j["state"] = job_state_name(job.state);
  j["namespace"] = job.target.ns;
  j["id"] = job.target.id;
  j["version"] = job.target.version;
  j["source"] = job.source;
  j["config"] = job.config;
  j["origin"] = job.origin;
  j["lease"] = job.lease;
  j["expected"] = job.expected;
  j["failed"] = job.failed;
  j["lost"] = job.lost;
  j["created_unix_ms"] = job.created_unix_ms;
  j["branch"] = job.branch;
  const bool wrong = job.finished() ? job.state != JobState::kDone : !job.message.empty();
  if (wrong) j["code"] = static_cast<int>(job.code);
  j["message"] = job.message;
  return dump(j);
}

Result<Job> job_from_json(std::string_view text) {
  if (!json_depth_fits(text)) return corrupt("job nesting", "at most 64", "deeper");
  try {
    const auto j = nlohmann::json::parse(text);
    Job job;
    job.id = j.at("job").get<std::string>();
    const auto state = parse_job_state(j.at("state").get<std::string>());
    if (!state) return corrupt("job", "a known state", j.at("state").get<std::string>());
    job.state = state.value();
    job.target.ns = j.at("namespace").get<std::string>();
    job.target.id = j.at("id").get<std::string>();
    job.target.version = j.at("version").get<std::uint64_t>();
    job.source = j.at("source").get<std::string>();
    job.config = j.at("config").get<std::string>();
    job.layer = layer_of(job.config);
    job.origin = j.at("origin").get<std::string>();
    job.lease = j.at("lease").get<std::uint64_t>();
    job.expected = j.at("expected").get<std::string>();
    job.failed = j.at("failed").get<std::uint32_t>();
    job.lost = j.at("lost").get<std::uint32_t>();
    job.created_unix_ms = j.at("created_unix_ms").get<std::int64_t>();
    job.branch = j.at("branch").get<bool>();
    job.code = static_cast<ErrorCode>(j.value("code", static_cast<int>(ErrorCode::kInternal)));
    job.message = j.at("message").get<std::string>();
    return job;
  } catch (const nlohmann::json::exception& e) {
    return corrupt("job document", "the fields of a job", e.what());
  }
}

}  // namespace memslot
