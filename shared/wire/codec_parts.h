#pragma once
// Inside of the codec: one pack/unpack pair for every body. Only codec*.cc include this.
//
// unpack() copies fields out of a verified table. It does not judge them (validate.h does), except
// for sizes: a verified buffer may name the same long string or table many times over, so lists and
// the strings in them are bounded before they are copied.
//
// Threads: a Reader belongs to one decode.
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "envelope_generated.h"
#include "shared/wire/limits.h"
#include "shared/wire/messages.h"

namespace memslot::wire {

using Builder = flatbuffers::FlatBufferBuilder;
template <class T>
using Offset = flatbuffers::Offset<T>;

// Collects the first error, so that unpack() reads as a list of fields.
class Reader {
 public:
  // Any length (the envelope bounds it); for strings that a message holds once.
  std::string text(const flatbuffers::String* s) { return s == nullptr ? std::string() : s->str(); }
  // At most kMaxWordBytes.
  std::string word(const flatbuffers::String* s);
  Sha256 sha(const fbs::Sha256* s);
  MemoryRef ref(const fbs::MemoryRef* r);
  MemoryVersion version(const flatbuffers::String* json);

  // unpack_one(element) for each, at most `limit`.
  template <class List, class Fn>
  auto list(const char* what, const List* from, std::size_t limit, Fn unpack_one) {
    std::vector<decltype(unpack_one(*from->Get(0)))> out;
    if (from == nullptr || !fits(what, from->size(), limit)) return out;
    out.reserve(from->size());
    for (const auto* element : *from) {
      out.push_back(unpack_one(*element));
      if (error_) break;
    }
    return out;
  }
  std::vector<float> floats(const char* what, const flatbuffers::Vector<float>* from,
                            std::size_t limit);

  // False, and failed, over the limit.
  bool fits(const char* what, std::size_t count, std::size_t limit);
  void fail(Error error) {
    if (!error_) error_ = std::move(error);
  }
  const std::optional<Error>& error() const { return error_; }

 private:
  std::optional<Error> error_;
};

// The enums of schemas/*.fbs and ours have the same values; validate.h checks the range.
template <class To, class From>
To same_value(From value) {
  return static_cast<To>(static_cast<std::underlying_type_t<From>>(value));
}

fbs::Sha256 pack_sha(const Sha256& sha);
Offset<fbs::MemoryRef> pack(Builder& b, const MemoryRef& ref);
Offset<flatbuffers::Vector<Offset<fbs::SlotInfo>>> pack(Builder& b,
                                                        const std::vector<SlotInfo>& slots);
std::vector<SlotInfo> unpack_slots(Reader& r,
                                   const flatbuffers::Vector<Offset<fbs::SlotInfo>>* slots);

#define MEMSLOT_CODEC_PAIR(Type)                     \
  Offset<fbs::Type> pack(Builder& b, const Type& m); \
  Type unpack(Reader& r, const fbs::Type& m);

MEMSLOT_CODEC_PAIR(Hello)
MEMSLOT_CODEC_PAIR(HelloReply)
MEMSLOT_CODEC_PAIR(Heartbeat)
MEMSLOT_CODEC_PAIR(ErrorReply)
MEMSLOT_CODEC_PAIR(OpenSession)
MEMSLOT_CODEC_PAIR(OpenSessionReply)
MEMSLOT_CODEC_PAIR(Observation)
MEMSLOT_CODEC_PAIR(Directive)
MEMSLOT_CODEC_PAIR(FetchMemory)
MEMSLOT_CODEC_PAIR(MemoryReply)
MEMSLOT_CODEC_PAIR(WriteBack)
MEMSLOT_CODEC_PAIR(WriteBackReply)
MEMSLOT_CODEC_PAIR(CloseSession)
MEMSLOT_CODEC_PAIR(CloseSessionReply)
MEMSLOT_CODEC_PAIR(AssignLearn)
MEMSLOT_CODEC_PAIR(LearnProgress)
MEMSLOT_CODEC_PAIR(LearnResult)
MEMSLOT_CODEC_PAIR(LearnFailed)
MEMSLOT_CODEC_PAIR(LearnAck)
MEMSLOT_CODEC_PAIR(CancelLearn)
MEMSLOT_CODEC_PAIR(SubmitTask)
MEMSLOT_CODEC_PAIR(AssignTask)
MEMSLOT_CODEC_PAIR(TaskEvent)
MEMSLOT_CODEC_PAIR(CancelTask)
MEMSLOT_CODEC_PAIR(AdminRequest)
MEMSLOT_CODEC_PAIR(AdminReply)
MEMSLOT_CODEC_PAIR(TraceEvents)
MEMSLOT_CODEC_PAIR(TraceEventsReply)

#undef MEMSLOT_CODEC_PAIR

}  // namespace memslot::wire
