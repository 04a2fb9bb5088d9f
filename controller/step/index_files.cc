#include "controller/step/index_files.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <regex>
#include <set>
#include <span>
#include <vector>

#include "shared/base/json_depth.h"
#include "shared/base/log.h"
#include "shared/base/rng.h"
#include "shared/files/mapped_file.h"
#include "shared/files/write_file.h"

namespace memslot {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

// Another one whenever the same keys and statistics give other rows: whiten_keys(), the choice of
// kMaxIndexedKeys, or the graph's build.
constexpr const char* kFormat = "memslot-index-1";
constexpr const char* kContents = "memslot-index.json";

// --- memories, as bytes --------------------------------------------------------------------------

void put_bytes(std::string& out, const void* from, std::size_t bytes) {
  out.append(static_cast<const char*>(from), bytes);
}
template <class T>
void put(std::string& out, const T& value) {
  put_bytes(out, &value, sizeof(value));
}
void put_text(std::string& out, const std::string& text) {
  put(out, static_cast<std::uint16_t>(text.size()));
  out += text;
}

void put_memory(std::string& out, const CandidateIndex::Kept& kept) {
  put_text(out, kept.id);
  put_text(out, kept.token);
  put(out, kept.keys);
  put(out, kept.keys_digest.low);
  put(out, kept.keys_digest.high);
  put(out, kept.run.first);
  put(out, kept.run.count);
  put_bytes(out, kept.mean_key.data(), kept.mean_key.size() * sizeof(float));
}

class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> left) : left_(left) {}
  bool at_end() const { return left_.empty(); }
  Status take(void* to, std::size_t bytes) {
    if (left_.size() < bytes) return corrupt("kept memories", "more bytes", "their end");
    std::memcpy(to, left_.data(), bytes);
    left_ = left_.subspan(bytes);
    return ok();
  }
  template <class T>
  Status take(T& value) {
    return take(&value, sizeof(value));
  }
  Status take(std::string& text) {
    std::uint16_t size = 0;
    MEMSLOT_TRY(take(size));
    text.resize(size);
    return take(text.data(), size);
  }

 private:
  std::span<const std::byte> left_;
};

Result<CandidateIndex::Kept> take_memory(Cursor& from, std::size_t reduced_dim) {
  CandidateIndex::Kept out;
  MEMSLOT_TRY(from.take(out.id));
  MEMSLOT_TRY(from.take(out.token));
  MEMSLOT_TRY(from.take(out.keys));
  MEMSLOT_TRY(from.take(out.keys_digest.low));
  MEMSLOT_TRY(from.take(out.keys_digest.high));
  MEMSLOT_TRY(from.take(out.run.first));
  MEMSLOT_TRY(from.take(out.run.count));
  out.mean_key.resize(reduced_dim);
  MEMSLOT_TRY(from.take(out.mean_key.data(), reduced_dim * sizeof(float)));
  return out;
}

// --- files ---------------------------------------------------------------------------------------

// The folder is the user's: nothing else in it is touched.
bool is_ours(const std::string& name) {
  static const std::regex kParts(R"(\d+-\d+\.(memories|white|reduced|graph)(\.part)?)");
  return name == kContents || name == std::string(kContents) + ".part" ||
         std::regex_match(name, kParts);
}

Json about(const std::string& name, std::span<const std::byte> bytes) {
  return {{"name", name}, {"bytes", bytes.size()}, {"xxh128", xxh128(bytes).hex()}};
}

Result<Json> write_part(const std::string& folder, const std::string& name,
                        std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  MEMSLOT_TRY(write_file(folder + "/" + name, text, 0600));
  return about(name, bytes);
}

// For another library, which would let everybody read what it writes.
Status make_private(const std::string& path) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (file < 0) return Error{ErrorCode::kIo, path + ": cannot create: " + std::strerror(errno)};
  ::close(file);
  return ok();
}

// What it wrote, and did not sync.
Result<Json> sync_part(const std::string& folder, const std::string& name) {
  const std::string path = folder + "/" + name;
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const bool synced = file >= 0 && ::fsync(file) == 0;
  const std::string why = synced ? "" : std::strerror(errno);
  if (file >= 0) ::close(file);
  if (!synced) return Error{ErrorCode::kIo, path + ": cannot sync: " + why};
  MEMSLOT_TRY(const MappedFile mapped, MappedFile::open(path));
  return about(name, mapped.bytes());
}

// `what` of a shard, with the digest that it had.
Result<MappedFile> open_part(const std::string& folder, const Json& shard, const char* what) {
  const Json& part = shard.at(what);
  const auto& name = part.at("name").get_ref<const std::string&>();
  if (name.find('/') != std::string::npos) return corrupt("index file", "a plain name", name);
  MEMSLOT_TRY(MappedFile file, MappedFile::open(folder + "/" + name));
  const std::string found = xxh128(file.bytes()).hex();
  if (part.at("xxh128") != found) {
    return corrupt(file.path(), "digest " + part.at("xxh128").dump(), found);
  }
  return file;
}

template <class T>
std::span<const T> numbers_of(const MappedFile& file) {
  return {reinterpret_cast<const T*>(file.bytes().data()), file.bytes().size() / sizeof(T)};
}

// kNotFound, kIo; kCorruption, also where it is somebody else's.
Result<Json> read_contents(const std::string& folder) {
  MEMSLOT_TRY(const MappedFile file, MappedFile::open(folder + "/" + kContents));
  const auto bytes = file.bytes();
  const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  Json out =
      json_depth_fits(text) ? Json::parse(text, nullptr, /*allow_exceptions=*/false) : Json();
  const bool fits = out.is_object() && out.value("format", Json()) == kFormat;
  if (!fits) return corrupt(file.path(), std::string("format ") + kFormat, "another");
  return out;
}

std::set<std::string> names_in(const Json& contents) {
  std::set<std::string> out;
  const Json fields = contents.flatten();
  for (const auto& field : fields.items()) {
    if (field.key().ends_with("/name") && field.value().is_string()) out.insert(field.value());
  }
  return out;
}

Json json_of(const SpaceKey& s) {
  return {{"model", s.model.hex()},
          {"layer", s.layer},
          {"form", static_cast<int>(s.form)},
          {"d_model", s.d_model},
          {"d_ff", s.d_ff}};
}

Result<Json> write_shard(const std::string& folder, const std::string& name,
                         const CandidateIndex& index, const CandidateIndex::KeptShard& shard) {
  Json out{{"space", json_of(shard.space)},
           {"whitening", index.whitening_digest(shard.space)},
           {"namespace", shard.ns}};
  std::string memories;
  index.each_kept(shard, [&](const auto& kept) { put_memory(memories, kept); });
  MEMSLOT_TRY(out["memories"],
              write_part(folder, name + ".memories", std::as_bytes(std::span(memories))));
  MEMSLOT_TRY(out["white"],
              write_part(folder, name + ".white", std::as_bytes(shard.keys->white())));
  MEMSLOT_TRY(out["reduced"],
              write_part(folder, name + ".reduced", std::as_bytes(shard.keys->reduced())));
  if (shard.keys->method() == KeyShard::Method::kGraph) {
    MEMSLOT_TRY(make_private(folder + "/" + name + ".graph"));
    MEMSLOT_TRY(shard.keys->save_graph(folder + "/" + name + ".graph"));
    MEMSLOT_TRY(out["graph"], sync_part(folder, name + ".graph"));
  }
  return out;
}

// How many memories; none where they are compared otherwise now.
Result<std::optional<std::size_t>> restore_shard(const std::string& folder, const Json& shard,
                                                 CandidateIndex& index) {
  const Json& s = shard.at("space");
  MEMSLOT_TRY(const Sha256 model, Sha256::parse(s.at("model").get<std::string>()));
  const SpaceKey space{.model = model,
                       .layer = s.at("layer"),
                       .form = static_cast<MlpForm>(s.at("form").get<int>()),
                       .d_model = s.at("d_model"),
                       .d_ff = s.at("d_ff")};
  index.expect(space);
  const Whitening* const whitening = index.whitening(space);
  if (whitening == nullptr || shard.at("whitening") != index.whitening_digest(space)) {
    return std::optional<std::size_t>();
  }
  MEMSLOT_TRY(const MappedFile rows, open_part(folder, shard, "memories"));
  MEMSLOT_TRY(const MappedFile white, open_part(folder, shard, "white"));
  MEMSLOT_TRY(const MappedFile reduced, open_part(folder, shard, "reduced"));
  CandidateIndex::KeptKeys keys{numbers_of<std::uint16_t>(white), numbers_of<float>(reduced), {}};
  if (shard.contains("graph")) {
    MEMSLOT_TRY(const MappedFile graph, open_part(folder, shard, "graph"));
    keys.graph = graph.path();
  }
  std::vector<CandidateIndex::Kept> memories;
  for (Cursor cursor(rows.bytes()); !cursor.at_end();) {
    MEMSLOT_TRY(auto kept, take_memory(cursor, whitening->reduced_dim()));
    memories.push_back(std::move(kept));
  }
  const std::size_t count = memories.size();
  MEMSLOT_TRY(index.restore(space, shard.at("namespace"), keys, std::move(memories)));
  return std::optional(count);
}

}  // namespace

// The files of ours that the contents do not name; all, where they cannot be read.
void IndexFiles::tidy() const {
  std::set<std::string> named;
  if (const auto contents = read_contents(folder_)) {
    named = names_in(contents.value());
    named.insert(kContents);
  }
  std::error_code failed;
  std::vector<fs::path> left;
  for (fs::directory_iterator it(folder_, failed), end; !failed && it != end;
       it.increment(failed)) {
    const std::string name = it->path().filename().string();
    if (is_ours(name) && !named.contains(name)) left.push_back(it->path());
  }
  for (const fs::path& path : left) {
    fs::remove(path, failed);
    if (failed) log::warn("{}: cannot be removed: {}", path.string(), failed.message());
  }
}

// Under names of their own first: what the contents name is whole at every moment.
Status IndexFiles::write(const CandidateIndex& index) const {
  std::error_code failed;
  const bool made = fs::create_directories(folder_, failed);
  if (!failed && made) fs::permissions(folder_, fs::perms::owner_all, failed);
  if (failed) return Error{ErrorCode::kIo, folder_ + ": " + failed.message()};
  const std::string generation = std::to_string(random_nonce());
  Json shards = Json::array();
  for (const auto& shard : index.shards()) {
    const std::string name = generation + "-" + std::to_string(shards.size());
    MEMSLOT_TRY(Json written, write_shard(folder_, name, index, shard));
    shards.push_back(std::move(written));
  }
  const Json contents{{"format", kFormat}, {"shards", std::move(shards)}};
  return write_file(folder_ + "/" + kContents, contents.dump(2), 0600);
}

bool IndexFiles::save(const CandidateIndex& index) const {
  if (!keeps()) return false;
  const auto written = write(index);
  if (!written) log::warn("the index is not kept as it is now: {}", written.error().message);
  tidy();
  return written.has_value();
}

IndexFiles::Restored IndexFiles::restore(CandidateIndex& index) const {
  Restored out;
  std::error_code ignored;
  if (!keeps()) return out;
  const bool there = fs::exists(folder_ + "/" + kContents, ignored);
  const auto read = there ? read_all(index, out) : ok();
  if (read) {
    tidy();  // what a save or a discard() left behind when it was killed
    return out;
  }
  log::warn("{}: made from the bank instead: {}", folder_, read.error().message);
  out.all = false;
  discard();
  return out;
}

Status IndexFiles::read_all(CandidateIndex& index, Restored& out) const {
  try {
    MEMSLOT_TRY(const Json contents, read_contents(folder_));
    for (const Json& shard : contents.at("shards")) {
      MEMSLOT_TRY(const auto count, restore_shard(folder_, shard, index));
      if (!count)
        log::info("index: keys of {} are compared otherwise now", shard.at("namespace").dump());
      out.memories += count.value_or(0);
      out.all = out.all && count;
    }
    return ok();
  } catch (const Json::exception& error) {
    return corrupt(kContents, "its fields", error.what());
  }
}

// The contents first: without them nothing of the rest is read.
void IndexFiles::discard() const {
  if (!keeps()) return;
  std::error_code failed;
  if (read_contents(folder_)) fs::remove(folder_ + "/" + kContents, failed);
  if (failed) log::warn("{}: cannot be removed: {}", folder_, failed.message());
  tidy();
}

}  // namespace memslot
