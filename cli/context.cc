#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>

#include "cli/commands.h"

namespace memslot::cli {

int Context::with_client(const std::function<Status(Client&, const Output&)>& body) const {
  const Output out = output();
  auto connected = Client::connect(client);
  if (!connected) return out.fail(connected.error());
  const Status done = body(*connected.value(), out);
  return done ? 0 : out.fail(done.error());
}

Result<std::string> read_text_file(const std::string& path) {
  if (path == "-") {
    return std::string(std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>());
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) return Error{ErrorCode::kNotFound, "file: cannot open " + path};
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (file.bad()) return Error{ErrorCode::kIo, "file: cannot read " + path};
  return text;
}

}  // namespace memslot::cli
