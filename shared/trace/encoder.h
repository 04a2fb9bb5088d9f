#pragma once
// Events to frames (docs/formats/trace.md). A memory is spelled once; later events name it by
// number.
//
//   frame = u32 bytes of the body, u64 XXH3-64 of the body, body (a FlatBuffer, schemas/trace.fbs)
//
// Threads: one at a time.
#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "shared/trace/event.h"

namespace memslot::trace {

inline constexpr std::string_view kMagic = "MSTRACE1";  // a file's first bytes
inline constexpr std::size_t kFrameHeaderBytes = 12;
inline constexpr std::size_t kMaxFrameBytes = std::size_t{32} << 20;

// Numbers of memories are per writer.
enum class Writer : std::uint8_t { kGenerator = 1, kController = 2 };

class Encoder {
 public:
  explicit Encoder(Writer writer) : writer_(writer) {}
  void add(const Event& event);
  std::size_t bytes() const { return out_.size(); }
  std::vector<std::byte> take();  // the frames since the last call
  // The same, and memories will be spelled anew: what comes later stands on its own, should these
  // frames be lost.
  std::vector<std::byte> take_and_forget();

 private:
  friend struct Packing;
  std::uint32_t number_of(const NamedMemory& memory);

  Writer writer_;
  std::map<std::string, std::uint32_t> known_;  // reference and digest
  std::vector<std::byte> out_;
};

}  // namespace memslot::trace
