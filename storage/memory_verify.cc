// MemoryBank: reads everything and reports what is damaged.
#include <algorithm>
#include <unordered_set>

#include "shared/memory/layout/check_layout.h"
#include "storage/bank_format.h"
#include "storage/key_block.h"
#include "storage/memory_bank.h"
#include "storage/record_metadata.h"

namespace memslot {
namespace {

constexpr std::size_t kPage = 1000;

// One run over the store.
class Verifier {
 public:
  Verifier(BankStore& store, const MemoryBank::Progress& progress, TimePoint deadline)
      : store_(store), progress_(progress), deadline_(deadline) {}

  Result<VerifyReport> run() {
    MEMSLOT_TRY(count());
    MEMSLOT_TRY(records("memory/"));
    MEMSLOT_TRY(records("branch/"));
    MEMSLOT_TRY(rest());
    return std::move(report_);
  }

 private:
  // visit(PayloadInfo) -> Status
  template <class Visit>
  Status for_each_payload(Visit visit) {
    std::string after;
    do {
      MEMSLOT_TRY(const auto page, store_.list_payloads(after, kPage, deadline_));
      for (const auto& info : page.entries) {
        MEMSLOT_TRY(visit(info));
      }
      after = page.next;
    } while (!after.empty());
    return ok();
  }

  Status count() {
    return for_each_payload([&](const PayloadInfo&) {
      ++total_;
      return ok();
    });
  }

  Status records(std::string_view prefix) {
    std::string after;
    do {
      MEMSLOT_TRY(const auto page, store_.list(prefix, after, kPage, deadline_));
      for (const auto& entry : page.entries) {
        const auto versions = store_.history(entry.id, deadline_);
        if (!versions && versions.error().code == ErrorCode::kTimeout) return versions.error();
        if (!versions && is_missing(versions.error())) continue;  // erased since it was listed
        if (!versions) {
          bad(entry.id, "", versions.error());
          continue;
        }
        for (const auto& record : versions.value()) {
          MEMSLOT_TRY(one_version(entry.id, record));
        }
      }
      after = page.next;
    } while (!after.empty());
    return ok();
  }

  Status one_version(const std::string& id, const RecordVersion& record) {
    const std::string name = id + "@" + std::to_string(record.number);
    const auto erased = [&] { return !has(id, record.token); };
    ++report_.versions;
    const auto memory = decode_memory(record);
    if (!memory) {
      bad(name, "", memory.error());
      return ok();
    }
    const auto& [version, parts] = memory.value();
    MEMSLOT_TRY(
        part(name, parts.payload, erased, [&, &meta = version](std::vector<std::byte> bytes) {
          return check_parameters(meta, std::move(bytes));
        }));
    MEMSLOT_TRY(part(name, parts.keys, erased,
                     [&, &meta = version](std::vector<std::byte> bytes) -> Status {
                       MEMSLOT_TRY(const auto keys, decode_keys(bytes));
                       if (keys.rows() != meta.keys) return corrupt("keys", meta.keys, keys.rows());
                       return ok();
                     }));
    return part(name, parts.source, erased, [](std::vector<std::byte>) { return ok(); });
  }

  static bool is_missing(const Error& error) { return error.code == ErrorCode::kNotFound; }

  // Whether the record still has that version; where nobody can say, it has.
  bool has(const std::string& id, const std::string& token) {
    const auto versions = store_.history(id, deadline_);
    if (!versions) return !is_missing(versions.error());
    return std::ranges::any_of(versions.value(), [&](const auto& v) { return v.token == token; });
  }

  static Status check_parameters(const MemoryVersion& meta, std::vector<std::byte> bytes) {
    if (bytes.size() != meta.payload_bytes)
      return corrupt("payload bytes", meta.payload_bytes, bytes.size());
    const auto digest = sha256(bytes);
    if (digest != meta.sha256) return corrupt("payload SHA-256", meta.sha256.hex(), digest.hex());
    MEMSLOT_TRY(const auto payload, MemoryPayload::parse(std::move(bytes)));
    MEMSLOT_TRY(check_signature(meta.signature, payload.signature()));
    MEMSLOT_TRY(check_layout(payload));
    return payload.check_finite();
  }

  // Reads a part once, however many versions refer to it. check(bytes) -> Status.
  // erased() -> whether it may be missing: the bank is in use meanwhile. (An index entry that lost
  // its bytes is kCorruption at the store, not kNotFound.)
  template <class Erased, class Check>
  Status part(const std::string& name, const std::string& token, Erased erased, Check check) {
    if (token.empty() || !seen_.insert(token).second) return ok();
    auto bytes = store_.get_payload(token, deadline_);
    if (!bytes && bytes.error().code == ErrorCode::kTimeout) return bytes.error();
    if (!bytes && is_missing(bytes.error()) && erased()) return ok();
    ++report_.payloads;
    if (!bytes) {
      bad(name, token, bytes.error());
    } else {
      report_.bytes += bytes.value().size();
      if (auto checked = check(std::move(bytes).value()); !checked)
        bad(name, token, checked.error());
    }
    if (progress_ && !progress_(report_.payloads, std::max(total_, report_.payloads))) {
      return Error{ErrorCode::kCancelled, "verify: expected to read " + std::to_string(total_) +
                                              " payloads, found it stopped after " +
                                              std::to_string(report_.payloads)};
    }
    return ok();
  }

  // Documents' blobs and orphans: the store's own digest is what there is to check.
  Status rest() {
    return for_each_payload([&](const PayloadInfo& info) {
      return part(
          "", info.token, [] { return true; }, [](std::vector<std::byte>) { return ok(); });
    });
  }

  void bad(const std::string& record, const std::string& token, const Error& error) {
    report_.bad.push_back({record, token, error.message});
  }

  BankStore& store_;
  const MemoryBank::Progress& progress_;
  const TimePoint deadline_;
  std::uint64_t total_ = 0;
  std::unordered_set<std::string> seen_;
  VerifyReport report_;
};

}  // namespace

Result<VerifyReport> MemoryBank::verify(const Progress& progress, TimePoint deadline) {
  return Verifier(store_, progress, deadline).run();
}

}  // namespace memslot
