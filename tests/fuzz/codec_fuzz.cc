// Question: can any bytes make decode() crash, or let a message through that encode() would refuse?
// Input: frames as tests/wire/frames_file.h writes them; seeds in corpus/codec.
#include <cstddef>
#include <cstdint>

#include "shared/wire/codec.h"
#include "tests/wire/frames_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace memslot;
  const auto frames = wire::frames_of_file(std::as_bytes(std::span(data, size)));
  const auto message = wire::decode(frames);
  if (message) MEMSLOT_CHECK(wire::encode(message.value()).has_value());
  return 0;
}
