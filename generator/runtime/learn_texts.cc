#include "generator/runtime/learn_texts.h"

#include <algorithm>  // sort
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

namespace memslot {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

Result<std::string> read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in)
    return Error{ErrorCode::kNotFound, "learn text: expected a file, found none (" + path + ")"};
  std::ostringstream text;
  text << in.rdbuf();
  if (in.bad()) return Error{ErrorCode::kIo, "learn text: cannot read " + path};
  return text.str();
}

}  // namespace

Result<LearnTexts> read_learn_texts(const std::string& anchor_directory,
                                    const std::string& control_file) {
  LearnTexts out;
  if (!anchor_directory.empty()) {
    std::error_code failed;
    std::vector<std::string> paths;
    for (const auto& entry : fs::directory_iterator(anchor_directory, failed)) {
      if (entry.path().extension() == ".txt") paths.push_back(entry.path().string());
    }
    if (failed) {
      return Error{ErrorCode::kNotFound, "anchor texts: expected a directory, found " +
                                             failed.message() + " (" + anchor_directory + ")"};
    }
    std::sort(paths.begin(), paths.end());
    for (const std::string& path : paths) {
      MEMSLOT_TRY(out.anchor.emplace_back(), read_file(path));
    }
  }
  if (control_file.empty()) return out;
  MEMSLOT_TRY(const std::string text, read_file(control_file));
  const json parsed = json::parse(text, nullptr, false);
  if (!parsed.is_object() || !parsed.contains("passages") || !parsed["passages"].is_array()) {
    return corrupt(control_file, "an object with a list \"passages\"", "another form");
  }
  for (const json& passage : parsed["passages"]) {
    if (!passage.is_object() || !passage.contains("text") || !passage["text"].is_string()) {
      return corrupt(control_file, "passages with a \"text\"", "another form");
    }
    out.control.push_back(passage["text"].get<std::string>());
  }
  return out;
}

}  // namespace memslot
