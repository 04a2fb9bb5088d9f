#include "rl/gains/dataset.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "shared/files/mapped_file.h"

namespace memslot::gains_program {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Of one article; the rest of a longer one is not used, so that one reply holds its tokens.
constexpr std::size_t kArticleBytes = std::size_t{96} << 10;

Result<std::string> read_file(const std::string& path) {
  MEMSLOT_TRY(const MappedFile file, MappedFile::open(path));
  return std::string(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
}

// Whole lines.
std::string cut_at_line(std::string text, std::size_t limit) {
  if (text.size() <= limit) return text;
  const std::size_t end = text.rfind('\n', limit - 1);
  if (end != std::string::npos && end > 0) text.resize(end + 1);
  return text;
}

Result<TokenText> tokenize(Pair& pair, const std::string& text) {
  MEMSLOT_TRY(const auto reply, pair.task("tokenize", {{"text", text}}));
  try {
    return TokenText::make(text, reply->at("ids").get<std::vector<std::int32_t>>(),
                           reply->at("pieces").get<std::vector<std::string>>());
  } catch (const json::exception& e) {
    return corrupt("tokens", "ids and pieces", e.what());
  }
}

struct Plain {
  std::string name, text;
  Split split = Split::kTrain;
  bool control = false;
};

Status read_prose(const std::string& folder, std::vector<Plain>& out) {
  std::error_code failed;
  std::vector<std::string> paths;
  for (const auto& entry : fs::directory_iterator(folder + "/prose", failed)) {
    if (entry.path().extension() == ".txt") paths.push_back(entry.path().string());
  }
  if (failed) {
    return Error{ErrorCode::kNotFound,
                 "prose: expected the folder " + folder + "/prose, found " + failed.message()};
  }
  std::sort(paths.begin(), paths.end());
  for (const std::string& path : paths) {
    MEMSLOT_TRY(std::string text, read_file(path));
    out.push_back({fs::path(path).stem().string(), std::move(text), Split::kTrain, false});
  }
  return ok();
}

Status read_passages(const std::string& path, Split split, std::vector<Plain>& out) {
  MEMSLOT_TRY(const std::string text, read_file(path));
  const json parsed = json::parse(text, nullptr, false);
  if (!parsed.is_object() || !parsed.contains("passages") || !parsed["passages"].is_array()) {
    return corrupt(path, "an object with a list \"passages\"", "another form");
  }
  for (const json& passage : parsed["passages"]) {
    if (!passage.is_object() || !passage.contains("text") || !passage["text"].is_string()) {
      return corrupt(path, "passages with a \"text\"", "another form");
    }
    out.push_back({fs::path(path).stem().string() + "-" + std::to_string(out.size()),
                   passage["text"].get<std::string>(), split, true});
  }
  return ok();
}

}  // namespace

Result<StreamSet> make_dataset(Pair& pair, const DatasetFiles& files, StreamOptions options,
                               const std::function<void(const std::string&)>& tell) {
  MEMSLOT_TRY(const std::string text, read_file(files.text));
  auto cut = cut_articles(text);
  if (!cut) return cut.error().with_context(files.text);
  if (files.articles > 0 && cut.value().size() > files.articles) cut.value().resize(files.articles);
  std::vector<Plain> plain;
  MEMSLOT_TRY(read_prose(files.prose, plain));
  MEMSLOT_TRY(read_passages(files.prose + "/control/development.json", Split::kValidation, plain));
  MEMSLOT_TRY(read_passages(files.prose + "/control/test.json", Split::kTest, plain));
  MEMSLOT_TRY(const auto status, pair.task("status", json::object()));
  options.model = status->value("model_digest", "");
  std::vector<SourceArticle> articles;
  for (Article& article : cut.value()) {
    tell("reading " + article.title);
    auto tokens = tokenize(pair, cut_at_line(std::move(article.text), kArticleBytes));
    if (!tokens) return tokens.error().with_context(article.title);
    articles.push_back({article.title, std::move(tokens).value()});
  }
  std::vector<CleanText> clean;
  for (const Plain& p : plain) {
    tell("reading " + p.name);
    auto tokens = tokenize(pair, p.text);
    if (!tokens) return tokens.error().with_context(p.name);
    clean.push_back({p.name, p.split, p.control, std::move(tokens).value()});
  }
  MEMSLOT_TRY(StreamSet set, make_streams(articles, clean, options));
  const std::size_t context = status->value("context", std::size_t{0});
  if (longest_text(set) > context) {
    return invalid("stream", "at most " + std::to_string(context) + " tokens (the context)",
                   longest_text(set));
  }
  return set;
}

std::size_t longest_text(const StreamSet& set) {
  std::size_t most = 0;
  for (const PlannedStream& s : set.streams) most = std::max(most, s.ids.size());
  // A memory's text is tokenized alone: a token or two may come on top.
  for (const PlannedMemory& m : set.memories) most = std::max<std::size_t>(most, m.tokens + 2);
  return most;
}

}  // namespace memslot::gains_program
