#include "controller/trace/trace_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "shared/base/log.h"
#include "shared/base/utf8.h"
#include "shared/files/mapped_file.h"
#include "shared/files/write_file.h"

namespace memslot {
namespace {

constexpr std::string_view kEnding = ".trace";
constexpr unsigned kOwnerOnly = 0600;

Error file_error(const std::string& path, int number) {
  const ErrorCode code = number == ENOSPC || number == EDQUOT  ? ErrorCode::kNoSpace
                         : number == ENOENT                    ? ErrorCode::kNotFound
                         : number == EACCES || number == EROFS ? ErrorCode::kPermission
                                                               : ErrorCode::kIo;
  return {code, path + ": " + std::strerror(number)};
}

class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

Status write_all(int fd, std::span<const std::byte> bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ::ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return file_error(path, errno);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return ok();
}

// Prompts stand in it: for this user only.
Status make_folder(const std::string& folder) {
  std::error_code failed;
  const bool made = std::filesystem::create_directories(folder, failed);
  if (!failed && made) {
    std::filesystem::permissions(folder, std::filesystem::perms::owner_all, failed);
  }
  return failed ? Status(file_error(folder, failed.value())) : ok();
}

Error not_begun(std::uint64_t session) {
  return {ErrorCode::kNotFound,
          "trace " + trace::trace_id(session) + ": expected one that began, found none"};
}

std::string memory_of(const MemoryRef& ref) { return ref.ns + "/" + ref.id; }

// What a listing tells of the events as they come.
struct Summing {
  TraceSummary& out;
  std::optional<std::uint64_t>& last_step;
  bool started = false;

  void operator()(const trace::Start& m) {
    if (!out.id.empty()) return;
    started = true;
    out.id = trace::trace_id(m.session);
    out.created_unix_ms = m.created_unix_ms;
    out.origin = m.origin;
    out.namespaces = m.namespaces;
    out.policy = m.policy;
    out.prompt = head_of(m.prompt_text, TraceStore::kPromptHead);
    for (const trace::NamedMemory& memory : m.opening) note(memory);
  }
  void operator()(const trace::Step& m) {
    if (last_step && m.step <= *last_step) return;  // sent twice
    last_step = m.step;
    ++out.steps;
    out.tokens += m.tokens.size();
    for (const trace::Active& active : m.active) note(active.memory);
  }
  void operator()(const trace::End& m) {
    out.ended = true;
    out.finish = m.finish;
    out.error = m.error;
  }
  void operator()(const trace::Decision&) {}
  void operator()(const trace::WriteBack&) {}
  void operator()(const trace::Fault&) {}
  void operator()(const trace::Feedback&) {}

  void note(const trace::NamedMemory& memory) {
    if (!memory.is_base()) out.memories.insert(memory_of(memory.ref));
  }
};

}  // namespace

struct TraceStore::Entry {
  TraceSummary summary;
  std::optional<std::uint64_t> last_step;
  std::uint64_t sequence = 0;  // of the generator's newest frames, since this process has it
  bool checked = true;         // false: bytes behind summary.bytes are to be cut away
};

TraceStore::TraceStore(std::string folder, TraceLimits limits, const Clock& clock)
    : folder_(std::move(folder)), limits_(limits), clock_(clock) {}
TraceStore::~TraceStore() = default;

std::string TraceStore::path_of(std::uint64_t session) const {
  return folder_ + "/" + trace::trace_id(session) + std::string(kEnding);
}

Status TraceStore::load_one(std::uint64_t session, const std::string& path) {
  MEMSLOT_TRY(const MappedFile file, MappedFile::open(path));
  const auto bytes = file.bytes();
  const std::string_view magic = trace::kMagic;
  const bool begins =
      bytes.size() >= magic.size() && std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
  if (!begins) return corrupt(path, "a file that begins with " + std::string(magic), "another");
  Entry entry;
  trace::FrameReader reader;
  Summing summing{entry.summary, entry.last_step};
  std::size_t at = magic.size();
  for (;;) {
    auto event = reader.next(bytes, at);
    if (!event) {
      log::warn("{}: kept up to byte {}: {}", path, at, event.error().message);
      entry.checked = false;
      break;
    }
    if (!event.value()) break;
    std::visit(summing, *event.value());
  }
  if (entry.summary.id.empty()) return corrupt(path, "a trace with its Start", "none");
  if (entry.summary.id != trace::trace_id(session)) {
    return memslot::mismatch(path + " holds trace", trace::trace_id(session), entry.summary.id);
  }
  entry.summary.bytes = at;
  total_ += at;
  order_.insert({entry.summary.created_unix_ms, session});
  entries_[session] = std::move(entry);
  return ok();
}

Status TraceStore::load() {
  if (!keeps()) return ok();
  std::error_code failed;
  MEMSLOT_TRY(make_folder(folder_));
  {
    const std::lock_guard lock(mutex_);
    for (const auto& file : std::filesystem::directory_iterator(folder_, failed)) {
      const std::filesystem::path& path = file.path();
      if (path.extension() != kEnding) continue;
      const auto session = trace::parse_trace_id(path.stem().string());
      const Status loaded = session ? load_one(session.value(), path.string()) : session.error();
      if (!loaded) log::warn("left alone: {}", loaded.error().message);
    }
  }
  if (failed) return file_error(folder_, failed.value());
  keep_limits();
  return ok();
}

TraceStore::Usage TraceStore::usage() const {
  const std::lock_guard lock(mutex_);
  return {entries_.size(), total_};
}

bool TraceStore::has(std::uint64_t session) const {
  const std::lock_guard lock(mutex_);
  return entries_.contains(session);
}

Status TraceStore::take(std::uint64_t session, std::uint64_t sequence,
                        std::span<const std::byte> frames,
                        const std::function<bool(const std::vector<std::string>&)>& allowed) {
  if (!keeps()) return ok();
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(session);
  const bool made = found == entries_.end();
  Entry fresh;
  Entry& entry = made ? fresh : found->second;
  if (sequence <= entry.sequence) return ok();  // sent again
  // On copies: frames that do not decode, or are not written, change nothing.
  TraceSummary summary = entry.summary;
  std::optional<std::uint64_t> last_step = entry.last_step;
  Summing summing{summary, last_step};
  trace::FrameReader reader;
  for (std::size_t at = 0; at < frames.size();) {
    MEMSLOT_TRY(const auto event, reader.next(frames, at));
    if (!event) break;
    const bool decided = std::holds_alternative<trace::Decision>(*event) ||
                         std::holds_alternative<trace::Feedback>(*event);
    if (decided || reader.writer() != trace::Writer::kGenerator) {
      return corrupt("trace events", "those of a generator", "the controller's");
    }
    std::visit(summing, *event);
  }
  const std::string id = trace::trace_id(session);
  if (summary.id.empty()) return not_begun(session);
  if (summary.id != id) return memslot::mismatch("trace events of session", id, summary.id);
  // No later than now, so that it gets old.
  if (made) summary.created_unix_ms = std::min(summary.created_unix_ms, clock_.unix_ms());
  if (was_removed(summary)) {
    if (!made) remove(found);
    return Error{ErrorCode::kNotFound, "trace " + id + ": a memory that spoke in it was removed"};
  }
  if (!allowed(summary.namespaces)) {
    return Error{ErrorCode::kPermission, "trace " + id + ": expected namespaces that are seen"};
  }
  MEMSLOT_TRY(write(session, entry, std::move(summary), frames, made));
  entry.last_step = last_step;
  entry.sequence = sequence;
  if (made) entries_.emplace(session, std::move(fresh));
  return ok();
}

Status TraceStore::add(std::uint64_t session, std::span<const std::byte> frames) {
  if (!keeps()) return ok();
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(session);
  if (found == entries_.end()) return not_begun(session);
  return write(session, found->second, found->second.summary, frames, /*made=*/false);
}

// Puts the frames behind what is there, and `summary` in the place of the entry's.
Status TraceStore::write(std::uint64_t session, Entry& entry, TraceSummary summary,
                         std::span<const std::byte> frames, bool made) {
  const std::string path = path_of(session);
  const int anew = made ? O_TRUNC : 0;  // what is there was no trace
  const File file(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | anew, 0600));
  if (file.get() < 0) return file_error(path, errno);
  const auto before = static_cast<::off_t>(summary.bytes);
  if (!entry.checked && ::ftruncate(file.get(), before) != 0) return file_error(path, errno);
  entry.checked = true;
  Status written = ok();
  if (made) {
    written = write_all(file.get(), bytes_of(trace::kMagic), path);
    summary.bytes = trace::kMagic.size();
  }
  if (written) written = write_all(file.get(), frames, path);
  if (!written) {  // half a frame would spoil what comes after it
    if (made) {
      ::unlink(path.c_str());
    } else if (::ftruncate(file.get(), before) != 0) {
      entry.checked = false;
    }
    return written;
  }
  summary.bytes += frames.size();
  total_ += summary.bytes - entry.summary.bytes;
  order_.insert({summary.created_unix_ms, session});
  entry.summary = std::move(summary);
  return ok();
}

std::vector<TraceSummary> TraceStore::list(const TraceQuery& query) const {
  const std::lock_guard lock(mutex_);
  std::vector<TraceSummary> out;
  auto from = order_.rbegin();
  if (!query.after.empty()) {
    const auto session = trace::parse_trace_id(query.after);
    const auto last = session ? entries_.find(session.value()) : entries_.end();
    if (last == entries_.end()) return out;
    from = std::make_reverse_iterator(
        order_.find({last->second.summary.created_unix_ms, last->first}));
  }
  for (; from != order_.rend() && out.size() < query.limit; ++from) {
    const TraceSummary& one = entries_.at(from->second).summary;
    const bool meant = query.visible(one.namespaces) &&
                       one.created_unix_ms >= query.since_unix_ms &&
                       one.created_unix_ms < query.until_unix_ms &&
                       (query.policy.empty() || one.policy.starts_with(query.policy)) &&
                       (!query.memories || query.memories(one.memories));
    if (meant) out.push_back(one);
  }
  return out;
}

Result<TraceSummary> TraceStore::summary(const std::string& id) const {
  MEMSLOT_TRY(const std::uint64_t session, trace::parse_trace_id(id));
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(session);
  if (found == entries_.end()) {
    return Error{ErrorCode::kNotFound, "trace " + id + ": expected one that is kept, found none"};
  }
  return found->second.summary;
}

Result<std::vector<std::byte>> TraceStore::bytes(const std::string& id) const {
  MEMSLOT_TRY(const std::uint64_t session, trace::parse_trace_id(id));
  std::uint64_t whole = 0;  // bytes of whole frames
  bool checked = true;
  {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(session);
    if (found == entries_.end()) {
      return Error{ErrorCode::kNotFound, "trace " + id + ": expected one that is kept, found none"};
    }
    whole = found->second.summary.bytes;
    checked = found->second.checked;
  }
  // Read, not mapped: more may be appended meanwhile, and cut away again. What is damaged is shown
  // as it is.
  const std::string path = path_of(session);
  std::error_code failed;
  if (!checked) whole = std::filesystem::file_size(path, failed);
  std::ifstream file(path, std::ios::binary);
  std::vector<std::byte> out(failed ? 0 : whole);
  file.read(reinterpret_cast<char*>(out.data()), static_cast<std::streamsize>(out.size()));
  if (!file || failed) return Error{ErrorCode::kIo, path + ": cannot be read"};
  return out;
}

Result<std::size_t> TraceStore::copy_to(const std::string& folder) const {
  std::map<std::uint64_t, std::uint64_t> bytes;  // by session: whole frames so far
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [session, entry] : entries_) bytes[session] = entry.summary.bytes;
  }
  MEMSLOT_TRY(make_folder(folder));
  std::size_t copied = 0;
  for (const auto& [session, size] : bytes) {
    const auto file = MappedFile::open(path_of(session));
    if (!file) {
      if (has(session)) return file.error();
      continue;  // gone meanwhile
    }
    const auto view = file.value().bytes().first(
        std::min<std::size_t>(file.value().bytes().size(), static_cast<std::size_t>(size)));
    const std::string to = folder + "/" + trace::trace_id(session) + std::string(kEnding);
    MEMSLOT_TRY(
        write_file(to, {reinterpret_cast<const char*>(view.data()), view.size()}, kOwnerOnly));
    ++copied;
  }
  return copied;
}

Result<std::size_t> restore_traces(const std::string& from, const std::string& to) {
  std::error_code failed;
  if (!std::filesystem::exists(from, failed)) return std::size_t{0};
  MEMSLOT_TRY(make_folder(to));
  std::size_t copied = 0;
  for (const auto& file : std::filesystem::directory_iterator(from, failed)) {
    const std::filesystem::path target = std::filesystem::path(to) / file.path().filename();
    if (file.path().extension() != kEnding || std::filesystem::exists(target, failed)) continue;
    MEMSLOT_TRY(const MappedFile bytes, MappedFile::open(file.path().string()));
    const auto view = bytes.bytes();
    MEMSLOT_TRY(write_file(target.string(),
                           {reinterpret_cast<const char*>(view.data()), view.size()}, kOwnerOnly));
    ++copied;
  }
  if (failed) return file_error(from, failed.value());
  return copied;
}

void TraceStore::remove(Entries::iterator entry) {
  const std::string path = path_of(entry->first);
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    log::warn("trace: {}", file_error(path, errno).message);
  }
  total_ -= entry->second.summary.bytes;
  order_.erase({entry->second.summary.created_unix_ms, entry->first});
  entries_.erase(entry);
}

Status TraceStore::erase(const std::string& id) {
  MEMSLOT_TRY(const std::uint64_t session, trace::parse_trace_id(id));
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(session);
  if (found == entries_.end()) {
    return Error{ErrorCode::kNotFound, "trace " + id + ": expected one that is kept, found none"};
  }
  remove(found);
  return ok();
}

// A step may come after the memory that spoke in it went.
bool TraceStore::was_removed(const TraceSummary& trace) const {
  return std::ranges::any_of(trace.memories, [&](const std::string& name) {
    const auto gone = removed_.find(name);
    return gone != removed_.end() && trace.created_unix_ms <= gone->second;
  });
}

std::size_t TraceStore::forget(const MemoryRef& memory) {
  const std::lock_guard lock(mutex_);
  const std::string name = memory_of(memory);
  removed_[name] = clock_.unix_ms();
  std::size_t gone = 0;
  for (auto it = entries_.begin(); it != entries_.end();) {
    const auto at = it++;
    if (!at->second.summary.memories.contains(name)) continue;
    remove(at);
    ++gone;
  }
  return gone;
}

void TraceStore::keep_limits() {
  const std::lock_guard lock(mutex_);
  const std::int64_t oldest =
      clock_.unix_ms() - std::chrono::duration_cast<std::chrono::milliseconds>(limits_.age).count();
  std::size_t gone = 0;
  const auto sweep = [&](bool under_way) {
    for (auto it = order_.begin(); it != order_.end();) {
      const auto [created, session] = *it++;
      const bool old = created < oldest;
      if (!old && total_ <= limits_.bytes) return;
      const auto entry = entries_.find(session);
      if (!old && !under_way && !entry->second.summary.ended) continue;
      remove(entry);
      ++gone;
    }
  };
  sweep(/*under_way=*/false);
  if (total_ > limits_.bytes) sweep(/*under_way=*/true);
  if (gone > 0) log::info("traces: {} are gone, by age or size", gone);
}

}  // namespace memslot
