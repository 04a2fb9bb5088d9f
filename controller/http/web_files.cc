#include "controller/http/web_files.h"

#include <span>

namespace memslot {
namespace {

constexpr const char* kPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
constexpr std::string_view kDocument = "/openapi.json";

const char* type_of(std::string_view path) {
  if (path.ends_with(".html")) return "text/html; charset=utf-8";
  if (path.ends_with(".css")) return "text/css; charset=utf-8";
  return "text/javascript; charset=utf-8";
}

const BuiltInFile* find(std::string_view path) {
  for (const BuiltInFile& file : std::span(kBuiltInFiles, kBuiltInFileCount)) {
    if (file.path == path) return &file;
  }
  return nullptr;
}

}  // namespace

std::optional<http::Response> web_file(std::string_view path) {
  if (path == kDocument) return std::nullopt;
  const BuiltInFile* const file = find(path == "/" ? "/index.html" : path);
  if (file == nullptr) return std::nullopt;
  http::Response out{200, std::string(file->bytes), type_of(file->path)};
  out.headers = {{"Content-Security-Policy", kPolicy}, {"Referrer-Policy", "no-referrer"}};
  return out;
}

std::string_view openapi_document() {
  const BuiltInFile* const file = find(kDocument);
  return file == nullptr ? std::string_view("{}") : file->bytes;
}

}  // namespace memslot
