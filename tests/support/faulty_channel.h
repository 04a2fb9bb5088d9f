#pragma once
// A Channel that loses, repeats, delays and corrupts packets by script: the n-th send() or
// receive() of an end. Everything else passes through.
//
// Owner:   owns the channel that it wraps; the script is shared, so that a test can add to it and
//          count calls after the channel was given away.
// Threads: as Channel.
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "shared/transport/channel.h"

namespace memslot {

enum class Fault { kDrop, kDuplicate, kDelay, kCorrupt };

class FaultScript {
 public:
  // `call` counts from 0, separately for sent and received packets.
  void on_send(std::size_t call, Fault fault) { set(sends_, call, fault); }
  void on_receive(std::size_t call, Fault fault) { set(receives_, call, fault); }
  // Every packet from now on, until false.
  void drop_all(bool drop) { drop_all_ = drop; }
  std::size_t sent() const { return sent_; }
  std::size_t received() const { return received_; }

  Duration delay = std::chrono::milliseconds(100);

 private:
  friend class FaultyChannel;
  using Faults = std::map<std::size_t, Fault>;
  void set(Faults& faults, std::size_t call, Fault fault) {
    const std::lock_guard lock(mutex_);
    faults[call] = fault;
  }
  // The fault of this call, or nothing.
  const Fault* next(const Faults& faults, std::atomic<std::size_t>& count) {
    static constexpr Fault kDropped = Fault::kDrop;
    const std::size_t call = count++;
    if (drop_all_) return &kDropped;
    const std::lock_guard lock(mutex_);
    const auto found = faults.find(call);
    return found == faults.end() ? nullptr : &found->second;
  }

  std::mutex mutex_;
  Faults sends_, receives_;
  std::atomic<std::size_t> sent_{0}, received_{0};
  std::atomic<bool> drop_all_{false};
};

class FaultyChannel final : public Channel {
 public:
  FaultyChannel(std::unique_ptr<Channel> inner, std::shared_ptr<FaultScript> script)
      : inner_(std::move(inner)), script_(std::move(script)) {}

  Status send(Packet packet) override {
    const Fault* fault = script_->next(script_->sends_, script_->sent_);
    if (fault == nullptr) return inner_->send(std::move(packet));
    switch (*fault) {
      case Fault::kDrop: return ok();
      case Fault::kDuplicate:
        static_cast<void>(inner_->send(packet));
        return inner_->send(std::move(packet));
      case Fault::kDelay:
        std::this_thread::sleep_for(script_->delay);
        return inner_->send(std::move(packet));
      case Fault::kCorrupt: return inner_->send(corrupted(std::move(packet)));
    }
    return ok();
  }

  Result<Packet> receive(TimePoint deadline) override {
    if (again_) return *std::exchange(again_, nullptr);
    for (;;) {
      MEMSLOT_TRY(auto packet, inner_->receive(deadline));
      const Fault* fault = script_->next(script_->receives_, script_->received_);
      if (fault == nullptr) return packet;
      switch (*fault) {
        case Fault::kDrop: continue;
        case Fault::kDuplicate: again_ = std::make_unique<Packet>(packet); return packet;
        case Fault::kDelay: std::this_thread::sleep_for(script_->delay); return packet;
        case Fault::kCorrupt: return corrupted(std::move(packet));
      }
    }
  }

  void wake() override { inner_->wake(); }
  void close() override { inner_->close(); }
  std::string endpoint() const override { return inner_->endpoint(); }
  ChannelStats stats() const override { return inner_->stats(); }

 private:
  // Half of the envelope, which no codec takes for a message.
  static Packet corrupted(Packet packet) {
    auto bytes = *packet.frames.at(0);
    bytes.resize(bytes.size() / 2);
    packet.frames[0] = share_bytes(std::move(bytes));
    return packet;
  }

  std::unique_ptr<Channel> inner_;
  std::shared_ptr<FaultScript> script_;
  std::unique_ptr<Packet> again_;  // the receiving thread's
};

}  // namespace memslot
