#pragma once
// What the parts of a generator count, read at one moment: for the task `status` and for
// GET /metrics (docs/metrics.md).
//
// Threads: values.
#include "generator/runtime/learn_worker.h"
#include "generator/runtime/memory_loader.h"
#include "generator/runtime/outbox.h"
#include "generator/runtime/scheduler.h"
#include "generator/runtime/session_probe.h"
#include "generator/runtime/task_service.h"

namespace memslot {

struct GeneratorFigures {
  struct Memory {
    std::size_t weights = 0, scratch = 0, kv = 0, resident = 0, learning_workspace = 0;
  };
  struct Residents {
    std::size_t memories = 0, budget = 0;
    std::uint64_t evictions = 0;
  };
  Memory memory;  // in bytes
  Residents residents;
  Scheduler::Counters scheduler;
  TaskService::Counters tasks;
  MemoryLoader::Counters loads;
  LearnWorker::Counters learning;
  Outbox::Counters outbox;
  RpcStats rpc;
  ChannelStats channel;
  bool connected = false;
};

void collect(const GeneratorFigures& figures, metrics::Page& page);
void collect(const LearnWorker::Times& times, metrics::Page& page);

}  // namespace memslot
