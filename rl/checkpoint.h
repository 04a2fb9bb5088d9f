#pragma once
// A policy on disk: a safetensors file with the scorer's tensors ("scorer.*"), the optimizer's
// ("adam.*", absent in a published snapshot) and, as metadata, what a reader must know before it
// uses them.
//
// save() writes beside the file, syncs and renames: a reader sees the old file or the new one, also
// after kill -9.
//
// Errors:  load(): kNotFound, kIo, kCorruption (truncated, not finite), kMismatch (features of
//          another version, sizes that do not fit the config); save(): kIo, kNoSpace.
// Threads: plain data.
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "rl/scorer_config.h"
#include "shared/tensor/tensor.h"

namespace memslot {

struct Checkpoint {
  std::uint32_t feature_version = 0;
  ScorerConfig scorer;
  std::uint64_t seed = 0;
  std::uint64_t update = 0;   // optimizer steps taken
  std::string config_digest;  // SHA-256 of the training's configuration, hex
  std::string index_digest;   // of the whitening that the keys were made with; "" if not bound
  std::map<std::string, std::string> notes;  // anything else, for people
  std::map<std::string, HostTensor> tensors;

  std::string bytes() const;   // the file's
  std::string digest() const;  // SHA-256 of bytes(), hex: names the policy
  static Result<Checkpoint> parse(std::string_view bytes);

  Status save(const std::string& path) const;
  static Result<Checkpoint> load(const std::string& path);
};

}  // namespace memslot
