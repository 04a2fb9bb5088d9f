#pragma once
// The sample sources, control passages and prose, read for the learning programs.
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace memslot::bench {

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

inline std::vector<std::filesystem::path> files_in(const std::filesystem::path& folder,
                                                   const std::string& extension) {
  std::vector<std::filesystem::path> out;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == extension) out.push_back(entry.path());
  }
  std::sort(out.begin(), out.end());
  return out;
}

struct Cloze {
  std::string prompt, answer;
};

struct SampleSource {
  std::string name, text;
  std::vector<Cloze> cloze;
};

inline std::vector<SampleSource> sample_sources(const std::filesystem::path& samples) {
  std::vector<SampleSource> out;
  for (const auto& path : files_in(samples / "sources", ".txt")) {
    SampleSource source{path.stem().string(), read_text(path), {}};
    auto questions = path;
    questions.replace_extension(".json");
    const auto parsed = nlohmann::json::parse(read_text(questions));
    for (const auto& c : parsed.at("cloze"))
      source.cloze.push_back({c.at("prompt"), c.at("answer")});
    out.push_back(std::move(source));
  }
  return out;
}

inline std::vector<std::string> control_passages(const std::filesystem::path& samples,
                                                 const std::string& part) {
  std::vector<std::string> out;
  const auto parsed = nlohmann::json::parse(read_text(samples / "control" / (part + ".json")));
  for (const auto& p : parsed.at("passages")) out.push_back(p.at("text"));
  return out;
}

inline std::vector<std::string> prose(const std::filesystem::path& samples) {
  std::vector<std::string> out;
  for (const auto& path : files_in(samples / "prose", ".txt")) out.push_back(read_text(path));
  return out;
}

}  // namespace memslot::bench
