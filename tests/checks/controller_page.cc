// Prints the controller's GET /metrics, of a bank in memory, for metrics.py.
#include <cstdio>
#include <thread>

#include "controller/link/server.h"
#include "shared/base/log.h"
#include "shared/http/http_metrics.h"
#include "shared/transport/loopback_channel.h"
#include "storage/memory_store.h"

namespace memslot {
namespace {

Status run() {
  MEMSLOT_TRY(log::start("controller_page", "warn"));
  const SystemClock clock;
  MemoryStore store(clock);
  MemoryBank bank(store, clock);
  DocumentBank documents(store, clock);
  const auto network = LoopbackNetwork::make();
  MEMSLOT_TRY(const auto channel, network->bind());
  Server server(*channel, bank, documents, clock, {});
  MEMSLOT_TRY(server.start());
  std::thread thread([&] { server.run(); });
  const std::string page = server.metrics_text() + http::Metrics("memslot_controller").text();
  std::fputs(page.c_str(), stdout);
  server.stop();
  thread.join();
  return ok();
}

}  // namespace
}  // namespace memslot

int main() { return memslot::run() ? 0 : 1; }
