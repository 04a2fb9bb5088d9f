#pragma once
// A message's frames in one file (fuzz seeds): (u32 length, little-endian, bytes)*. What a fuzzer
// makes of it: a length beyond the end takes the rest.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "shared/base/bytes.h"

namespace memslot::wire {

inline std::vector<SharedBytes> frames_of_file(std::span<const std::byte> file) {
  std::vector<SharedBytes> frames;
  while (file.size() >= 4) {
    std::uint32_t length = 0;
    std::memcpy(&length, file.data(), 4);
    file = file.subspan(4);
    const auto frame = file.first(std::min<std::size_t>(length, file.size()));
    frames.push_back(std::make_shared<const std::vector<std::byte>>(frame.begin(), frame.end()));
    file = file.subspan(frame.size());
  }
  return frames;
}

inline std::vector<std::byte> file_of_frames(const std::vector<SharedBytes>& frames) {
  std::vector<std::byte> file;
  for (const SharedBytes& frame : frames) {
    const auto length = static_cast<std::uint32_t>(frame->size());
    const auto* bytes = reinterpret_cast<const std::byte*>(&length);
    file.insert(file.end(), bytes, bytes + 4);
    file.insert(file.end(), frame->begin(), frame->end());
  }
  return file;
}

}  // namespace memslot::wire
