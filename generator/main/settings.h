#pragma once
// What `memslot-generator` can be told: file, environment (MEMSLOT_GENERATOR_...), command line.
//
// Threads: one, in main.
#include <cstdint>
#include <string>
#include <vector>

#include "generator/runtime/generator_service.h"
#include "shared/base/config.h"

namespace memslot {

struct GeneratorSettings {
  std::string model;
  std::string weights = "bf16";
  std::vector<std::string> slot_layers;
  std::int64_t threads = 0;
  std::string endpoint = "tcp://127.0.0.1:7400";
  std::string keys;
  std::string server_key;
  std::int64_t resident_mib = 256;
  std::int64_t outbox_mib = 256;
  std::int64_t max_sessions = 8;
  std::int64_t max_waiting = 64;
  std::int64_t outer_seed = 1;
  std::string anchor_directory = "auto";  // the project's samples, where they are
  std::string control_file = "auto";
  std::int64_t flush_ms = 10'000;
  std::string http = "auto";
  std::string http_tokens;
  std::string log_level = "info";
};

// The table that fills `settings`; docs/operations.md shows it.
ConfigTable settings_table(GeneratorSettings& settings);
Result<ConfigOutcome> load_settings(int argc, const char* const* argv,
                                    const char* const* environment, GeneratorSettings* settings);
// kInvalidArgument: no model, layers that are no numbers.
Result<GeneratorOptions> generator_options(const GeneratorSettings& settings);

}  // namespace memslot
