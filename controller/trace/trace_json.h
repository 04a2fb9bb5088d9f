#pragma once
// Traces as JSON, for clients (docs/formats/tasks.md).
//
// Threads: pure functions.
#include <string>
#include <vector>

#include "controller/trace/trace_store.h"

namespace memslot::trace_json {

std::string list(const std::vector<TraceSummary>& traces, const std::string& next);
// Steps from number `from` on, at most `count` of them; `next` is null behind the last.
std::string show(const TraceSummary& summary, const trace::Trace& trace, std::uint64_t from,
                 std::size_t count, bool candidates);
// The arguments of a generator's task "replay".
std::string replay_arguments(const TraceSummary& summary, const trace::Trace& trace,
                             const std::string& what_if);

}  // namespace memslot::trace_json
