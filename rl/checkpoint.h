#pragma once
// A policy on disk (docs/formats/policy.md): a safetensors file with the scorer's tensors
// ("scorer.*"), the optimizer's ("adam.*" and "value.*", absent in a published snapshot), the
// whitening that its queries and keys were made with ("whitening.*") and, as metadata, what a
// reader must know before it uses them.
//
// The bilinear match and the similarities mean something in that whitening only, so the two travel
// together, and whoever runs the policy compares keys in it.
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
#include "rl/whitening.h"
#include "shared/tensor/tensor.h"

namespace memslot {

// What a policy was trained for. The defaults are those of a policy that nothing binds.
struct PolicyTask {
  std::string model;                 // digest of the model, hex; "": any of the whitening's size
  std::int32_t layer = -1;           // of the slot; -1: any
  std::uint32_t window_tokens = 32;  // that a query is the mean of
  std::uint32_t long_window_tokens = 48;
  std::uint32_t candidates = 32;  // K
  float swap_cost = 0;            // nats per token
  float generic_gain = 0;         // mean over the training steps, nats per token
  friend bool operator==(const PolicyTask&, const PolicyTask&) = default;
};

struct Checkpoint {
  std::uint32_t feature_version = 0;
  ScorerConfig scorer;
  PolicyTask task;
  Whitening whitening;  // R is the scorer's key_dim; fits nothing: not bound to one
  std::uint64_t seed = 0;
  std::uint64_t update = 0;                   // optimizer steps taken
  std::string config_digest;                  // SHA-256 of the training's configuration, hex
  std::map<std::string, std::string> notes;   // anything else, for people
  std::map<std::string, HostTensor> tensors;  // without the whitening's

  std::string bytes() const;   // the file's
  std::string digest() const;  // SHA-256 of bytes(), hex: names the policy
  static Result<Checkpoint> parse(std::string_view bytes);

  Status save(const std::string& path) const;
  static Result<Checkpoint> load(const std::string& path);
};

}  // namespace memslot
