// Writes one message of every body into a folder, as seeds for the fuzzer and as what later
// versions must still read. Files that exist are kept: they are the format as it was.
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "shared/wire/codec.h"
#include "tests/wire/frames_file.h"
#include "tests/wire/random_message.h"

int main(int argc, char** argv) {
  using namespace memslot::wire;
  if (argc != 2) {
    std::fprintf(stderr, "usage: memslot_wire_seeds FOLDER\n");
    return 2;
  }
  for (std::size_t type = 0; type < std::variant_size_v<Body>; ++type) {
    Random random(type + 1);
    const Message message = random_message(type, random);
    const auto frames = encode(message);
    if (!frames) {
      std::fprintf(stderr, "%s\n", frames.error().message.c_str());
      return 1;
    }
    const std::filesystem::path path =
        std::filesystem::path(argv[1]) / ("v2_" + std::string(body_name(message.body)));
    if (std::filesystem::exists(path)) continue;
    const auto bytes = file_of_frames(frames.value());
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  }
  return 0;
}
