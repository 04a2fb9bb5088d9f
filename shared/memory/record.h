#pragma once
// A memory's version as the bank and the wire describe it: about a kilobyte beside the payload.
//
// Threads: values.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/digest.h"
#include "shared/memory/signature.h"
#include "shared/tensor/dtype.h"

namespace memslot {

// Names of memories, namespaces and sources: 1 to 120 of [a-z0-9._-], not starting with '.' or '-'.
// kInvalidArgument.
Status check_name(std::string_view what, std::string_view name);
// Turns any text into such a name: lower case, other characters to '-', cut at 100.
std::string slug(std::string_view text);

// "namespace/memory" or, with a version, "namespace/memory@7".
struct MemoryRef {
  std::string ns = "default";
  std::string id;
  std::uint64_t version = 0;  // 0: the head
  friend bool operator==(const MemoryRef&, const MemoryRef&) = default;
  friend auto operator<=>(const MemoryRef&, const MemoryRef&) = default;
  std::string text() const;
  // "ID", "ID@V", "NS/ID", "NS/ID@V"; kInvalidArgument.
  static Result<MemoryRef> parse(std::string_view text, std::string_view default_ns = "default");
};

enum class VersionOrigin : std::uint8_t {  // values are on disk and on the wire; append only
  kLearned = 1,
  kWriteBack = 2,
  kRollback = 3,
  kImported = 4,
};
std::string_view version_origin_name(VersionOrigin origin);
Result<VersionOrigin> parse_version_origin(std::string_view name);

// What learning measured. NLL in nats per token; shares in [0, 1]. Absent (null in JSON): not
// measured, or without a meaning for the kind (docs/kinds.md).
struct LearnStats {
  double nll_before = 0;  // of the source, with base
  double nll_after = 0;   // of the source, with the memory
  // Top-1, whole document, teacher-forced, first 16 tokens excluded; absent where there are no
  // more.
  std::optional<double> recall_before, recall;
  std::optional<double> locality;  // relative NLL change on control text, (after - before) / before
  double wise_min_activation = 0;  // min over the source's tokens of ||memory(x) - base(x)||_2
  double wall_seconds = 0;
  std::optional<std::uint32_t> steps;  // of the optimizer
  std::uint32_t tokens = 0;
  std::optional<std::uint32_t> segments;
  std::string config;  // the learn configuration, JSON
  friend bool operator==(const LearnStats&, const LearnStats&) = default;
};

// One immutable version. Names bytes by digest, one publish by token.
struct MemoryVersion {
  MemoryRef ref;       // ref.version counts from 1 in publish order
  std::string token;   // unique, opaque
  std::string parent;  // token of the version it was made from; "" for the first
  SlotSignature signature;
  DType dtype = DType::kBF16;
  std::string source;  // the source's name
  VersionOrigin origin = VersionOrigin::kLearned;
  std::string origin_id;  // job id and lease, session id, or file name
  std::int64_t created_unix_ms = 0;
  std::uint64_t payload_bytes = 0;
  Sha256 sha256;           // of the payload's bytes
  std::uint32_t keys = 0;  // how many key vectors (rows of d_model f32)
  LearnStats stats;
  bool branch = false;         // a lost compare-and-set kept aside; never the head
  std::uint64_t position = 0;  // tokens read so far, for stateful kinds
  friend bool operator==(const MemoryVersion&, const MemoryVersion&) = default;
};

// Canonical JSON, one object; parse refuses unknown kinds, bad digests and wrong types
// (kCorruption), and ignores unknown fields (written by a later version).
std::string to_json(const MemoryVersion& version);
Result<MemoryVersion> memory_version_from_json(std::string_view json);

// Far above any hidden state, and far below where squares and their sums leave f32: one memory's
// keys take part in the statistics of everybody's.
inline constexpr float kMaxKeyValue = 1e6f;

// Key vectors: `rows` rows of `dim` f32, row-major.
struct MemoryKeys {
  std::uint32_t dim = 0;
  std::vector<float> values;
  std::uint32_t rows() const {
    return dim == 0 ? 0 : static_cast<std::uint32_t>(values.size() / dim);
  }
};

}  // namespace memslot
