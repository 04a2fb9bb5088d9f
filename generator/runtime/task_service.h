#pragma once
// Runs the controller's tasks, each on a thread of its own, and sends their events.
//
// Operation:   assign() starts a task; cancel() asks it to end; the last event (or its error) is
//              delivered even if the link's queue is full for a moment. What a controller that is
//              gone had asked for runs to its end (its write-backs count), but tells nobody.
// Concurrency: assign(), cancel() from the link's thread: they do not block.
// Limits:      max_tasks at once; over it the task ends at once with kOverloaded.
// Lifecycle:   stop() asks all tasks to end and waits for them: a step under way is finished.
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>

#include "generator/runtime/engine.h"

namespace memslot {

class TaskService {
 public:
  using Handler =
      std::function<Result<std::string>(const TaskContext&, const std::string& arguments)>;
  using Handlers = std::map<std::string, Handler>;  // by kind
  struct Counters {
    std::size_t running = 0;
    std::uint64_t done = 0, failed = 0, refused = 0;
  };

  TaskService(Engine& engine, Handlers handlers, std::size_t max_tasks);
  ~TaskService();

  void assign(std::uint64_t request, wire::AssignTask task);
  void cancel(std::uint64_t task);
  void stop();
  Counters counters() const;

 private:
  struct Running {
    std::uint64_t task = 0;
    std::uint64_t controller = 0;  // its incarnation: task numbers are the controller's
    std::stop_source stop;
    std::thread thread;
    bool finished = false;
  };
  void run(Running* running, std::uint64_t request, const wire::AssignTask& task);
  void reap();

  Engine& engine_;
  const Handlers handlers_;
  const std::size_t max_tasks_;
  mutable std::mutex mutex_;
  std::list<Running> running_;
  Counters counters_;
  bool stopping_ = false;
};

}  // namespace memslot
