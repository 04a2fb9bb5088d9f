#pragma once
// A BankStore that fails on purpose, scripted by call number: the n-th call (from 1) of a method
// fails before it does anything, fails after it did everything (what a lost acknowledgement looks
// like), or is preceded by an action (a delay, a competing writer).
//
// Threads: any; the script is set before use.
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "storage/bank_store.h"

namespace memslot {

class FaultyStore final : public BankStore {
 public:
  enum class Call {
    kPut,
    kGet,
    kErasePayload,
    kListPayloads,
    kPublish,
    kHead,
    kHistory,
    kList,
    kErase,
    kTrim,
    kCompact
  };

  // `real` must outlive this.
  explicit FaultyStore(BankStore& real) : real_(real) {}

  void fail_before(Call call, int number, ErrorCode code) { script(call, number).before = code; }
  void fail_after(Call call, int number, ErrorCode code) { script(call, number).after = code; }
  void run_before(Call call, int number, std::function<void()> action) {
    script(call, number).action = std::move(action);
  }
  int calls(Call call) const {
    const std::lock_guard lock(mutex_);
    const auto it = counts_.find(call);
    return it == counts_.end() ? 0 : it->second;
  }

  Status put_payload(std::string_view token, std::span<const std::byte> bytes,
                     TimePoint deadline) override {
    return around<Status>(Call::kPut, [&] { return real_.put_payload(token, bytes, deadline); });
  }
  Result<std::vector<std::byte>> get_payload(std::string_view token, TimePoint deadline) override {
    return around<Result<std::vector<std::byte>>>(
        Call::kGet, [&] { return real_.get_payload(token, deadline); });
  }
  Status erase_payload(std::string_view token, TimePoint deadline) override {
    return around<Status>(Call::kErasePayload,
                          [&] { return real_.erase_payload(token, deadline); });
  }
  Result<PayloadPage> list_payloads(std::string_view after, std::size_t limit,
                                    TimePoint deadline) override {
    return around<Result<PayloadPage>>(Call::kListPayloads,
                                       [&] { return real_.list_payloads(after, limit, deadline); });
  }
  Result<RecordVersion> publish(std::string_view id, std::string_view expected,
                                std::string_view token, std::string_view metadata,
                                TimePoint deadline) override {
    return around<Result<RecordVersion>>(
        Call::kPublish, [&] { return real_.publish(id, expected, token, metadata, deadline); });
  }
  Result<RecordVersion> head(std::string_view id, TimePoint deadline) override {
    return around<Result<RecordVersion>>(Call::kHead, [&] { return real_.head(id, deadline); });
  }
  Result<std::vector<RecordVersion>> history(std::string_view id, TimePoint deadline) override {
    return around<Result<std::vector<RecordVersion>>>(Call::kHistory,
                                                      [&] { return real_.history(id, deadline); });
  }
  Result<RecordPage> list(std::string_view prefix, std::string_view after, std::size_t limit,
                          TimePoint deadline) override {
    return around<Result<RecordPage>>(Call::kList,
                                      [&] { return real_.list(prefix, after, limit, deadline); });
  }
  Status erase(std::string_view id, std::string_view expected, TimePoint deadline) override {
    return around<Status>(Call::kErase, [&] { return real_.erase(id, expected, deadline); });
  }
  Status trim(std::string_view id, std::size_t keep, TimePoint deadline) override {
    return around<Status>(Call::kTrim, [&] { return real_.trim(id, keep, deadline); });
  }
  Result<StoreUsage> usage(TimePoint deadline) override { return real_.usage(deadline); }
  Status compact(TimePoint deadline) override {
    return around<Status>(Call::kCompact, [&] { return real_.compact(deadline); });
  }
  Status backup(const std::string& directory, TimePoint deadline) override {
    return real_.backup(directory, deadline);
  }

 private:
  struct Fault {
    ErrorCode before{};  // 0: none
    ErrorCode after{};
    std::function<void()> action;
  };
  Fault& script(Call call, int number) { return faults_[{call, number}]; }

  template <class T, class Do>
  T around(Call call, Do run) {
    Fault fault;
    {
      const std::lock_guard lock(mutex_);
      const auto it = faults_.find({call, ++counts_[call]});
      if (it != faults_.end()) fault = it->second;
    }
    if (fault.action) fault.action();
    if (fault.before != ErrorCode{}) return Error{fault.before, "injected before"};
    T result = run();
    if (fault.after != ErrorCode{}) return Error{fault.after, "injected after"};
    return result;
  }

  BankStore& real_;
  mutable std::mutex mutex_;
  std::map<std::pair<Call, int>, Fault> faults_;
  std::map<Call, int> counts_;  // guarded by mutex_
};

}  // namespace memslot
