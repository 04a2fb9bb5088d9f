#pragma once
// The generator as a whole: model, memories, compute thread, tasks, learning, link.
//
// Operation:   open() loads the model and measures nothing else; start() takes the link and serves.
// Lifecycle:   stop(): tasks finish the step they are in, learning ends, what waits in the outbox
// is
//              sent for up to `flush`, then everything goes down in the reverse order.
// Threads:     start(), stop() and status() from one thread; what runs inside is above.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "generator/runtime/engine.h"

namespace memslot {

struct GeneratorOptions {
  std::string model;             // file or folder
  std::string weights = "bf16";  // or f32; bf16 becomes f32 where the backend lacks it
  std::vector<int> slot_layers;  // empty: default_slot_layer()
  int threads = 0;               // 0: as many as the machine has cores
  std::size_t resident_bytes = std::size_t{256} << 20;
  std::size_t outbox_bytes = std::size_t{256} << 20;
  int max_sessions = 8;
  int max_waiting = 64;
  std::uint64_t outer_seed = 1;  // of the outer parameters that are made here
  std::string anchor_directory;  // *.txt, clean prose; "": none
  std::string control_file;      // {"passages": [{"text"}]}; "": none
  Duration flush = std::chrono::seconds(10);
};

// Three quarters up, but never the last layer: 22 of 30.
int default_slot_layer(int layers);

class GeneratorService {
 public:
  static Result<std::unique_ptr<GeneratorService>> open(GeneratorOptions options,
                                                        const Clock& clock);
  ~GeneratorService();

  void start(std::unique_ptr<Channel> channel);
  void stop();

  // "memslot-generator ready model=... weights=... slots=... row_invariant=..."
  std::string ready_line() const;
  Engine& engine();
  // GET /metrics (docs/metrics.md); any thread, between start() and stop().
  std::string metrics_text() const;

 private:
  struct Impl;
  explicit GeneratorService(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace memslot
