#pragma once
// A learn job as it stands in the bank: document "job/all/<id>", the text to learn as its blob.
//
//   queued -> leased -> done | failed | cancelled
//               |-> queued again (bounded): lease ran out, generator lost, or it could not
//
// Threads: values.
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "shared/memory/record.h"

namespace memslot {

enum class JobState : std::uint8_t { kQueued = 1, kLeased, kDone, kFailed, kCancelled };
std::string_view job_state_name(JobState state);  // "queued", "leased", ...
Result<JobState> parse_job_state(std::string_view name);
// By state, at static_cast<std::size_t>(state) - 1.
using JobCounts = std::array<std::uint64_t, 5>;

struct Job {
  std::string id;    // sorts by time of submission
  MemoryRef target;  // the memory to make; version: what the job made, 0 before
  std::string source;
  std::string config;  // JSON (shared/memory/learn_config.h), for the learner
  int layer = -1;      // the slot layer that `config` names; -1: any
  std::string origin;  // who asked, so that a retried request finds its job; may be ""
  JobState state = JobState::kQueued;
  std::uint64_t lease = 0;   // number of the newest lease; results of older ones are refused
  std::string expected;      // token of the head when it was leased, "" for a new memory
  std::uint32_t failed = 0;  // attempts that a generator gave up
  std::uint32_t lost = 0;    // attempts that ended with their generator or lease
  std::int64_t created_unix_ms = 0;
  bool branch = false;  // the head moved meanwhile: the result was kept as a branch
  ErrorCode code = ErrorCode::kInternal;  // of what went wrong: unless the job is done
  std::string message;  // why it failed, or was cancelled, or what is odd about the result

  std::string token() const { return id + ":" + std::to_string(lease); }  // of the newest lease
  bool finished() const { return state != JobState::kQueued && state != JobState::kLeased; }
};

std::string to_json(const Job& job);
Result<Job> job_from_json(std::string_view json);  // kCorruption

}  // namespace memslot
