#pragma once
// What every task of a generator works with. GeneratorService makes it and outlives the tasks.
//
// Threads: a bundle of references; each part has its own rule.
#include <functional>
#include <stop_token>
#include <string>

#include "generator/model/tokenizer.h"
#include "generator/runtime/memory_loader.h"
#include "generator/runtime/outbox.h"
#include "generator/runtime/scheduler.h"
#include "generator/runtime/session.h"
#include "generator/runtime/session_probe.h"

namespace memslot {

struct Engine {
  Gpt& gpt;
  const Tokenizer* tokenizer;  // null where the model file brings none
  Sha256 model_digest;
  Sha256 base_digest;      // attest() when the model was loaded
  LogitsScratch& scratch;  // on the compute thread only
  MemoryLoader& loader;
  Scheduler& scheduler;
  ControllerLink& link;
  Outbox& outbox;
  SessionProbe& probe;
  const Clock& clock;
};

// One task under way.
struct TaskContext {
  Engine& engine;
  std::stop_token stop;
  // Sends an event that is not the last; JSON.
  std::function<void(std::string)> emit;
  // One that must not be lost: waits while the link's queue is full.
  std::function<void(std::string)> deliver{};
};

}  // namespace memslot
