#pragma once
// The web inspector (controller/web/) and the API's document, as they were built into the program.
//
// Threads: pure functions.
#include <optional>
#include <string>
#include <string_view>

#include "shared/http/http_server.h"

namespace memslot {

// "/", "/app.js", "/lib/api.js", ... None: no such file. With the policy under which a browser may
// run it: nothing from elsewhere, and nothing that stands in the page itself.
std::optional<http::Response> web_file(std::string_view path);
std::string_view openapi_document();

struct BuiltInFile {
  std::string_view path;  // "/lib/api.js"
  std::string_view bytes;
};
// All of them; made by embed.cmake.
extern const BuiltInFile kBuiltInFiles[];
extern const std::size_t kBuiltInFileCount;

}  // namespace memslot
