#include "rl/gains/side_by_side.h"

#include <algorithm>  // min
#include <atomic>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

namespace memslot::gains_program {

using nlohmann::json;

Result<std::size_t> generators_of(Pair& pair) {
  MEMSLOT_TRY(const auto peers, pair.ask("peers.ls", json::object()));
  const json& found = peers.result->value("generators", json::array());
  if (!found.empty()) return found.size();
  return Error{ErrorCode::kUnavailable, "generator: expected one connected, found none"};
}

Status side_by_side(Pair& pair, std::size_t generators, const char* phase, std::size_t count,
                    const std::function<Result<std::string>(std::size_t)>& fn,
                    const OnProgress& tell) {
  std::atomic<std::size_t> next{0};
  std::mutex mutex;
  std::size_t done = 0;
  Status failed = ok();
  const auto work = [&] {
    for (std::size_t i = next++; i < count; i = next++) {
      auto result = fn(i);
      const std::lock_guard lock(mutex);
      if (!result) {
        if (failed) failed = result.error();
        next = count;
        pair.stop();
        return;
      }
      tell({phase, ++done, count, result.value()});
    }
  };
  std::vector<std::thread> threads;
  for (std::size_t t = 1; t < std::min(generators, count); ++t) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  return failed;
}

}  // namespace memslot::gains_program
