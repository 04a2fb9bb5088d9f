#pragma once
// Frames to events. Bytes are never trusted: a frame's length, digest and FlatBuffer are checked
// before a field is read, and lists are bounded by the frame.
//
// Errors:  kCorruption, with the frame's place. What came before it is good.
// Threads: a FrameReader belongs to one thread.
#include <cstddef>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "shared/trace/encoder.h"

namespace memslot::trace {

// Takes frames one after the other, also in several spans: what memories are called is remembered.
class FrameReader {
 public:
  // The next event of `bytes` from `at` on, which moves behind it; nothing at the end. Frames that
  // only spell a memory are passed over.
  Result<std::optional<Event>> next(std::span<const std::byte> bytes, std::size_t& at);
  Writer writer() const { return writer_; }  // of the event that next() gave last

 private:
  friend struct Unpacking;
  std::map<std::pair<Writer, std::uint32_t>, NamedMemory> known_;
  Writer writer_ = Writer::kGenerator;
};

struct Trace {
  Start start;
  std::vector<Step> steps;          // by number, each once
  std::vector<Decision> decisions;  // by step and slot, each once
  std::vector<WriteBack> write_backs;
  std::vector<Fault> faults;
  std::vector<Feedback> feedback;
  std::optional<End> end;         // absent: under way, or ended with its generator
  std::size_t good_bytes = 0;     // of the file, up to the first damage
  std::optional<Error> damage{};  // what is wrong from there on

  const Decision* decision(std::uint64_t step, std::uint32_t slot) const;
};

// Of a whole file. kCorruption: no trace at all (magic, or no Start). Damage further on is told in
// `damage`, with all events before it.
Result<Trace> read_trace(std::span<const std::byte> file);

}  // namespace memslot::trace
