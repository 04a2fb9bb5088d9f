#include "generator/runtime/task_service.h"

#include <utility>

#include "shared/base/log.h"

namespace memslot {
namespace {

wire::Message last_event(std::uint64_t request, std::uint64_t task, Result<std::string> result) {
  wire::TaskEvent event;
  event.task = task;
  event.final = true;
  if (result) {
    event.event = std::move(result).value();
  } else {
    event.event = R"({"type":"error"})";
    event.error = wire::ErrorReply{result.error().code, result.error().message};
  }
  return {request, std::move(event), {}};
}

}  // namespace

TaskService::TaskService(Engine& engine, Handlers handlers, std::size_t max_tasks)
    : engine_(engine), handlers_(std::move(handlers)), max_tasks_(max_tasks) {}

TaskService::~TaskService() { stop(); }

void TaskService::assign(std::uint64_t request, wire::AssignTask task) {
  reap();
  std::unique_lock lock(mutex_);
  for (const Running& other : running_) {
    const bool same = other.task == task.task && other.controller == engine_.link.controller();
    if (same && !other.finished) return;  // a retry of the same assignment
  }
  if (stopping_ || running_.size() >= max_tasks_) {
    ++counters_.refused;
    const std::size_t found = running_.size();
    lock.unlock();
    const Status told = engine_.link.post(last_event(
        request, task.task,
        Error{ErrorCode::kOverloaded, "tasks: expected at most " + std::to_string(max_tasks_) +
                                          ", found " + std::to_string(found) + " running"}));
    if (!told) log::debug("task {}: {}", task.task, told.error().message);
    return;
  }
  Running& running = running_.emplace_back();
  running.task = task.task;
  running.controller = engine_.link.controller();
  running.thread = std::thread(
      [this, request, entry = &running, task = std::move(task)] { run(entry, request, task); });
}

void TaskService::run(Running* running, std::uint64_t request, const wire::AssignTask& task) {
  const auto asked_by_this_one = [&] { return running->controller == engine_.link.controller(); };
  const auto emit = [&](std::string event) {
    if (!asked_by_this_one()) return;
    const Status posted =
        engine_.link.post({request, wire::TaskEvent{task.task, std::move(event), false, {}}, {}});
    if (!posted) log::debug("task {}: event dropped: {}", task.task, posted.error().message);
  };
  const auto deliver = [&](std::string event) {
    if (!asked_by_this_one()) return;
    engine_.link.deliver({request, wire::TaskEvent{task.task, std::move(event), false, {}}, {}});
  };
  const auto handler = handlers_.find(task.kind);
  Result<std::string> result =
      handler == handlers_.end()
          ? Result<std::string>(invalid("task kind", "one that this generator answers", task.kind))
          : handler->second({engine_, running->stop.get_token(), emit, deliver}, task.arguments);
  if (!result) log::info("task {} ({}): {}", task.task, task.kind, result.error().message);
  {
    const std::lock_guard lock(mutex_);
    ++(result ? counters_.done : counters_.failed);
  }
  if (asked_by_this_one()) engine_.link.deliver(last_event(request, task.task, std::move(result)));
  const std::lock_guard lock(mutex_);
  running->finished = true;
}

void TaskService::cancel(std::uint64_t task) {
  const std::lock_guard lock(mutex_);
  for (Running& running : running_) {
    if (running.task == task) running.stop.request_stop();
  }
}

void TaskService::reap() {
  std::list<Running> finished;
  {
    const std::lock_guard lock(mutex_);
    for (auto it = running_.begin(); it != running_.end();) {
      const auto next = std::next(it);
      if (it->finished) finished.splice(finished.end(), running_, it);
      it = next;
    }
  }
  for (Running& running : finished) running.thread.join();
}

void TaskService::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    for (Running& running : running_) running.stop.request_stop();
  }
  // The list's nodes stay where they are: tasks still write into theirs.
  for (Running& running : running_) {
    if (running.thread.joinable()) running.thread.join();
  }
  const std::lock_guard lock(mutex_);
  running_.clear();
}

TaskService::Counters TaskService::counters() const {
  const std::lock_guard lock(mutex_);
  Counters out = counters_;
  for (const Running& running : running_) out.running += running.finished ? 0 : 1;
  return out;
}

}  // namespace memslot
