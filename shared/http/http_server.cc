#include "shared/http/http_server.h"

#include <openssl/crypto.h>  // CRYPTO_memcmp

#include <algorithm>
#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <charconv>
#include <deque>
#include <fstream>
#include <limits>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "shared/base/json_dump.h"
#include "shared/base/log.h"

namespace memslot::http {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace bhttp = boost::beast::http;
using boost::system::error_code;
using tcp = asio::ip::tcp;

namespace {

constexpr std::size_t kMaxHeader = 16384;
constexpr std::size_t kMostDrained = std::size_t{4} << 20;  // of a request that was refused
constexpr std::chrono::seconds kDrainTime{5};

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

// `plus`: is a space, as in queries.
std::string decoded(std::string_view text, bool plus) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned value = 0;
    const bool escaped = text[i] == '%' && i + 2 < text.size() &&
                         std::from_chars(text.data() + i + 1, text.data() + i + 3, value, 16).ptr ==
                             text.data() + i + 3;
    if (escaped) {
      out += static_cast<char>(value);
      i += 2;
    } else {
      out += plus && text[i] == '+' ? ' ' : text[i];
    }
  }
  return out;
}

std::map<std::string, std::string> query_of(std::string_view text) {
  std::map<std::string, std::string> out;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('&'), text.size());
    const std::string_view part = text.substr(0, end);
    const std::size_t equals = std::min(part.find('='), part.size());
    if (!part.empty()) {
      out[decoded(part.substr(0, equals), true)] =
          decoded(part.substr(std::min(equals + 1, part.size())), true);
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

// Without its body.
Request request_of(const bhttp::request<bhttp::string_body>& from) {
  Request out;
  out.method = std::string(from.method_string());
  const std::string target(from.target());
  const std::size_t mark = std::min(target.find('?'), target.size());
  out.path = decoded(std::string_view(target).substr(0, mark), false);
  out.query = query_of(std::string_view(target).substr(std::min(mark + 1, target.size())));
  for (const auto& field : from) {
    out.headers[lower({field.name_string().data(), field.name_string().size()})] =
        std::string(field.value());
  }
  return out;
}

std::string header(const Request& request, const char* name) {
  const auto found = request.headers.find(name);
  return found == request.headers.end() ? std::string() : found->second;
}

unsigned status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kMismatch: return 400;
    case ErrorCode::kPermission: return 403;
    case ErrorCode::kNotFound: return 404;
    case ErrorCode::kConflict: return 409;
    case ErrorCode::kOverloaded: return 429;
    case ErrorCode::kNotSupported: return 501;
    case ErrorCode::kUnavailable:
    case ErrorCode::kCancelled:
    case ErrorCode::kBusy: return 503;
    case ErrorCode::kTimeout: return 504;
    case ErrorCode::kNoSpace: return 507;
    case ErrorCode::kCorruption:
    case ErrorCode::kIndeterminate:
    case ErrorCode::kIo:
    case ErrorCode::kInternal: return 500;
  }
  return 500;
}

Response failure(unsigned status, std::string_view message, std::string_view code) {
  const char* type = status < 500 ? "invalid_request_error" : "server_error";
  const nlohmann::ordered_json body = {
      {"error", {{"message", message}, {"type", type}, {"param", nullptr}, {"code", code}}}};
  Response out;
  out.status = status;
  out.body = dump(body);
  return out;
}

// What the worker hands to the thread of input and output.
class Outgoing final : public Exchange {
 public:
  Outgoing(asio::io_context& io, Request request, std::size_t limit)
      : request_(std::move(request)), limit_(limit), io_(io), wake_(io) {}

  const Request& request() const override { return request_; }
  void respond(Response response) override {
    const std::lock_guard lock(mutex_);
    if (begun_) return;
    begun_ = done_ = true;
    head_ = std::move(response);
    notify();
  }
  void begin_stream(std::string content_type) override {
    const std::lock_guard lock(mutex_);
    if (begun_) return;
    begun_ = streaming_ = true;
    head_.content_type = std::move(content_type);
    notify();
  }
  bool write(std::string bytes) override {
    const std::lock_guard lock(mutex_);
    if (gone_.stop_requested() || !streaming_ || done_) return false;
    waiting_ += bytes.size();
    if (waiting_ > limit_) {
      gone_.request_stop();
      notify();
      return false;
    }
    pieces_.push_back(std::move(bytes));
    notify();
    return true;
  }
  void end_stream() override {
    const std::lock_guard lock(mutex_);
    done_ = true;
    notify();
  }
  std::stop_token gone() const override { return gone_.get_token(); }

  // Those of the thread of input and output.
  struct Taken {
    bool begun = false, streaming = false, done = false;
    Response head;
    std::deque<std::string> pieces;
  };
  Taken take() {
    const std::lock_guard lock(mutex_);
    waiting_ = 0;
    return {begun_, streaming_, done_, std::move(head_), std::exchange(pieces_, {})};
  }
  void vanish() {
    gone_.request_stop();
    wake_.cancel();
  }
  bool vanished() const { return gone_.stop_requested(); }
  Duration age() const { return std::chrono::steady_clock::now() - made_; }
  asio::steady_timer& wake() { return wake_; }
  std::weak_ptr<Outgoing> self;

 private:
  // On the other thread the timer is only touched by what runs there.
  void notify() {
    asio::post(io_, [weak = self] {
      if (const auto alive = weak.lock()) alive->wake_.cancel();
    });
  }

  const Request request_;
  const std::chrono::steady_clock::time_point made_ = std::chrono::steady_clock::now();
  const std::size_t limit_;
  asio::io_context& io_;
  asio::steady_timer wake_;
  std::stop_source gone_;
  std::mutex mutex_;  // guards what follows
  bool begun_ = false, streaming_ = false, done_ = false;
  Response head_;
  std::deque<std::string> pieces_;
  std::size_t waiting_ = 0;
};

}  // namespace

Response error_response(const Error& error) {
  return failure(status_of(error.code), error.message, error_code_name(error.code));
}

Response error_response(unsigned status, std::string_view message) {
  return failure(status, message, "");
}

Response other_method(std::string allow) {
  Response out = error_response(405, "method: expected " + allow);
  out.headers = {{"Allow", std::move(allow)}};
  return out;
}

bool is_probe(const std::string& path) { return path == "/healthz" || path == "/readyz"; }

struct Server::Impl : std::enable_shared_from_this<Server::Impl> {
  Impl(ServerOptions chosen, Handler handle)
      : options(std::move(chosen)),
        metrics(options.metrics != nullptr ? *options.metrics : uncounted),
        handler(std::move(handle)),
        acceptor(io),
        workers(static_cast<std::size_t>(std::min(options.workers, options.max_connections))) {}

  using Stream = beast::tcp_stream;
  using Message = bhttp::request<bhttp::string_body>;

  asio::awaitable<void> accept();
  asio::awaitable<void> serve(std::shared_ptr<Stream> stream);
  asio::awaitable<bool> answer(std::shared_ptr<Stream> stream, Request request,
                               const Message& message);
  asio::awaitable<void> refuse(std::shared_ptr<Stream> stream, Response response,
                               const Message& message);
  asio::awaitable<bool> send(std::shared_ptr<Stream> stream, std::shared_ptr<Outgoing> out,
                             const Message& message);
  asio::awaitable<bool> send_whole(std::shared_ptr<Stream> stream, const Response& response,
                                   const Message& message, bool keep);
  std::optional<Response> refusal(Request& request) const;
  template <class Body>
  void dress(bhttp::response<Body>& to, const Response& from) const;

  const ServerOptions options;
  Metrics uncounted{"memslot"};  // where nobody asked
  Metrics& metrics;
  const Handler handler;
  asio::io_context io{1};
  tcp::acceptor acceptor;
  asio::thread_pool workers;
  std::thread thread;
  bool loopback = true;
  int connections = 0;
  std::map<Outgoing*, std::weak_ptr<Outgoing>> under_way;  // on the thread of input and output
  std::atomic<bool> stopping{false};
};

template <class Body>
void Server::Impl::dress(bhttp::response<Body>& to, const Response& from) const {
  to.set(bhttp::field::server, "memslot");
  to.set(bhttp::field::content_type, from.content_type);
  to.set(bhttp::field::cache_control, "no-store");
  to.set("X-Content-Type-Options", "nosniff");
  to.set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'");
  for (const auto& [name, value] : from.headers) to.set(name, value);
}

// Why a request may not be answered at all. Notes the token that it came with.
std::optional<Response> Server::Impl::refusal(Request& request) const {
  const std::string host = lower(header(request, "host"));
  const std::size_t colon = host.rfind(':');
  const bool with_port = colon != std::string::npos && host.find(']', colon) == std::string::npos;
  const std::string name = host.substr(0, with_port ? colon : host.size());
  const bool local = name == "localhost" || name == "127.0.0.1" || name == "[::1]";
  if (loopback && !local) {
    return failure(403, "host: expected localhost or a loopback address, found " + host, "host");
  }
  const std::string origin = lower(header(request, "origin"));
  if (!origin.empty() && origin != "http://" + host && origin != "https://" + host) {
    return failure(403, "origin: expected this server's own, found " + origin, "origin");
  }
  const bool looks = request.method == "GET" || request.method == "HEAD";
  const std::string sent = header(request, "authorization");
  constexpr std::string_view kBearer = "bearer ";
  const std::string token = lower(sent).starts_with(kBearer) ? sent.substr(kBearer.size()) : "";
  const auto is_sent = [&](const std::string& one) {
    return one.size() == token.size() && CRYPTO_memcmp(one.data(), token.data(), one.size()) == 0;
  };
  if (options.tokens.empty()) {
    if (!options.browser_token.empty() && is_sent(options.browser_token)) request.token = token;
    if (origin.empty() || looks) return std::nullopt;
    if (!request.token.empty()) return std::nullopt;
    return failure(403, "a browser may change something only with the token of this server",
                   "origin");
  }
  if (std::ranges::any_of(options.tokens, is_sent)) {
    request.token = token;
    return std::nullopt;
  }
  if (looks && options.open(request.path)) return std::nullopt;
  Response out = failure(401, "authorization: expected a bearer token that is known", "token");
  out.headers = {{"WWW-Authenticate", "Bearer"}};
  return out;
}

asio::awaitable<bool> Server::Impl::send_whole(std::shared_ptr<Stream> stream,
                                               const Response& response, const Message& message,
                                               bool keep) {
  bhttp::response<bhttp::string_body> out(static_cast<bhttp::status>(response.status), 11);
  dress(out, response);
  out.keep_alive(keep);
  out.body() = response.body;
  out.prepare_payload();
  if (message.method() == bhttp::verb::head) out.body().clear();
  error_code failed;
  stream->expires_after(options.write_time);
  co_await bhttp::async_write(*stream, out, asio::redirect_error(asio::use_awaitable, failed));
  if (failed) metrics.abandoned();
  co_return !failed && keep;
}

// Writes what the handler makes, as it comes. False: the connection ends.
asio::awaitable<bool> Server::Impl::send(std::shared_ptr<Stream> stream,
                                         std::shared_ptr<Outgoing> out, const Message& message) {
  bool headed = false;
  error_code failed;
  for (;;) {
    Outgoing::Taken next = out->take();
    if (out->vanished() && !(next.begun && !next.streaming)) {
      metrics.abandoned();
      co_return false;
    }
    if (next.begun && !next.streaming) {
      metrics.answered(next.head.status, out->age());
      co_return co_await send_whole(stream, next.head, message, message.keep_alive() && !stopping);
    }
    const bool heads = next.begun && !headed;
    if (heads) {
      headed = true;
      metrics.answered(200, out->age());
      bhttp::response<bhttp::empty_body> head(bhttp::status::ok, 11);
      dress(head, next.head);
      head.chunked(true);
      bhttp::response_serializer<bhttp::empty_body> serializer(head);
      stream->expires_after(options.write_time);
      co_await bhttp::async_write_header(*stream, serializer,
                                         asio::redirect_error(asio::use_awaitable, failed));
    }
    for (const std::string& piece : next.pieces) {
      if (failed) break;
      if (piece.empty()) continue;  // an empty chunk would be the last
      stream->expires_after(options.write_time);
      co_await asio::async_write(*stream, bhttp::make_chunk(asio::buffer(piece)),
                                 asio::redirect_error(asio::use_awaitable, failed));
    }
    if (!failed && next.done) {
      stream->expires_after(options.write_time);
      co_await asio::async_write(*stream, bhttp::make_chunk_last(),
                                 asio::redirect_error(asio::use_awaitable, failed));
    }
    if (failed) {
      metrics.abandoned();
      out->vanish();
    }
    if (failed || next.done) co_return !failed && message.keep_alive() && !stopping;
    if (heads || !next.pieces.empty()) continue;  // what came meanwhile woke nobody
    stream->expires_never();
    error_code woken;
    out->wake().expires_at(asio::steady_timer::time_point::max());
    co_await out->wake().async_wait(asio::redirect_error(asio::use_awaitable, woken));
  }
}

asio::awaitable<bool> Server::Impl::answer(std::shared_ptr<Stream> stream, Request request,
                                           const Message& message) {
  if (stopping) {
    metrics.answered(503);
    co_return co_await send_whole(stream, failure(503, "stopping", "unavailable"), message, false);
  }
  const auto out = std::make_shared<Outgoing>(io, std::move(request), options.max_waiting);
  out->self = out;
  under_way[out.get()] = out;
  // A client that leaves is noticed while nothing is written, too.
  const auto watch = [](std::shared_ptr<Stream> of,
                        std::shared_ptr<Outgoing> told) -> asio::awaitable<void> {
    error_code failed;
    co_await of->socket().async_wait(tcp::socket::wait_read,
                                     asio::redirect_error(asio::use_awaitable, failed));
    if (failed) co_return;
    char one = 0;
    of->socket().non_blocking(true, failed);
    const std::size_t n =
        of->socket().receive(asio::buffer(&one, 1), tcp::socket::message_peek, failed);
    if ((failed && failed != asio::error::would_block) || (!failed && n == 0)) told->vanish();
  };
  asio::co_spawn(io, watch(stream, out), asio::detached);
  asio::post(workers, [this, out] {
    try {
      handler(*out);
    } catch (const std::exception& error) {  // of a library; ours are values
      log::error("http {}: {}", out->request().path, error.what());
    }
    out->respond(failure(500, "no answer was made", "internal"));  // where there was none
    out->end_stream();
  });
  const bool keep = co_await send(stream, out, message);
  out->vanish();
  under_way.erase(out.get());
  error_code ignored;
  stream->socket().cancel(ignored);  // the watch
  co_return keep;
}

// Closed with bytes unread, the connection would be reset and the answer lost.
asio::awaitable<void> Server::Impl::refuse(std::shared_ptr<Stream> stream, Response response,
                                           const Message& message) {
  metrics.answered(response.status);
  co_await send_whole(stream, response, message, false);
  error_code failed;
  stream->socket().shutdown(tcp::socket::shutdown_send, failed);
  stream->expires_after(kDrainTime);
  char rest[4096];
  for (std::size_t left = kMostDrained; left > sizeof rest && !failed; left -= sizeof rest) {
    co_await stream->async_read_some(asio::buffer(rest),
                                     asio::redirect_error(asio::use_awaitable, failed));
  }
}

asio::awaitable<void> Server::Impl::serve(std::shared_ptr<Stream> stream) {
  beast::flat_buffer buffer;
  error_code failed;
  for (bool keep = true; keep && !stopping;) {
    bhttp::request_parser<bhttp::string_body> parser;
    parser.header_limit(kMaxHeader);
    // Set by the path, once the header is known. (None at all refuses every body in Boost 1.74.)
    parser.body_limit(std::numeric_limits<std::uint64_t>::max());
    if (buffer.size() == 0) {
      stream->expires_after(options.idle_time);
      const std::size_t n = co_await stream->async_read_some(
          buffer.prepare(4096), asio::redirect_error(asio::use_awaitable, failed));
      if (failed) break;
      buffer.commit(n);
    }
    stream->expires_after(options.header_time);
    co_await bhttp::async_read_header(*stream, buffer, parser,
                                      asio::redirect_error(asio::use_awaitable, failed));
    Request request;
    if (!failed) {
      request = request_of(parser.get());
      if (auto refused = refusal(request)) {
        co_await refuse(stream, std::move(*refused), parser.get());
        break;
      }
      const auto own = options.max_body_of.find(request.path);
      const std::size_t most = own == options.max_body_of.end() ? options.max_body : own->second;
      if (parser.content_length().value_or(0) > most) {
        co_await refuse(
            stream, failure(413, "body: expected at most " + std::to_string(most) + " bytes", ""),
            parser.get());
        break;
      }
      parser.body_limit(most);
      stream->expires_after(options.body_time);
      if (beast::iequals(parser.get()[bhttp::field::expect], "100-continue")) {
        bhttp::response<bhttp::empty_body> go_on(bhttp::status::continue_, 11);
        co_await bhttp::async_write(*stream, go_on,
                                    asio::redirect_error(asio::use_awaitable, failed));
      }
      co_await bhttp::async_read(*stream, buffer, parser,
                                 asio::redirect_error(asio::use_awaitable, failed));
    }
    if (failed == beast::error::timeout) metrics.slow();
    if (failed == bhttp::error::end_of_stream || failed == beast::error::timeout) break;
    if (failed) {
      const unsigned status = failed == bhttp::error::body_limit     ? 413
                              : failed == bhttp::error::header_limit ? 431
                                                                     : 400;
      co_await refuse(stream, failure(status, "request: " + failed.message(), ""), parser.get());
      break;
    }
    stream->expires_never();
    request.body = std::move(parser.get().body());
    keep = co_await answer(stream, std::move(request), parser.get());
  }
  error_code ignored;
  stream->socket().shutdown(tcp::socket::shutdown_both, ignored);
  --connections;
  metrics.closed();
}

asio::awaitable<void> Server::Impl::accept() {
  const auto keep = shared_from_this();
  while (!stopping) {
    error_code failed;
    tcp::socket socket =
        co_await acceptor.async_accept(asio::redirect_error(asio::use_awaitable, failed));
    if (failed == asio::error::operation_aborted || stopping) break;
    if (failed) {  // too many open files, say: not a reason to spin
      asio::steady_timer pause(io, std::chrono::milliseconds(50));
      co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, failed));
      continue;
    }
    if (connections >= options.max_connections) {  // closed at once
      metrics.refused();
      continue;
    }
    ++connections;
    metrics.opened();
    asio::co_spawn(io, serve(std::make_shared<Stream>(std::move(socket))), asio::detached);
  }
}

Result<std::unique_ptr<Server>> Server::start(ServerOptions options, Handler handler) {
  error_code failed;
  const auto address = asio::ip::make_address(options.address, failed);
  if (failed) return invalid("http address", "an IP address", options.address);
  if (!address.is_loopback() && options.tokens.empty()) {
    return invalid("http address", "a loopback address, or tokens beside it", options.address);
  }
  std::shared_ptr<Impl> impl;
  try {
    impl = std::make_shared<Impl>(std::move(options), std::move(handler));
  } catch (const std::system_error& error) {
    return Error{ErrorCode::kOverloaded,
                 std::string("http: cannot make its threads: ") + error.what()};
  }
  impl->loopback = address.is_loopback();
  const tcp::endpoint endpoint(address, impl->options.port);
  impl->acceptor.open(endpoint.protocol(), failed);
  if (!failed) impl->acceptor.set_option(tcp::acceptor::reuse_address(true), failed);
  if (!failed) impl->acceptor.bind(endpoint, failed);
  if (!failed) impl->acceptor.listen(asio::socket_base::max_listen_connections, failed);
  if (failed) {
    const std::string where = impl->options.address + ":" + std::to_string(impl->options.port);
    const bool taken = failed == asio::error::address_in_use;
    if (taken && impl->options.if_free) {
      log::warn("http: port {} is taken: not served (--http names another, or off)", where);
      return std::unique_ptr<Server>();
    }
    return Error{taken ? ErrorCode::kBusy : ErrorCode::kIo,
                 "http " + where + ": expected a port that is free, found: " + failed.message()};
  }
  asio::co_spawn(impl->io, impl->accept(), asio::detached);
  impl->thread = std::thread([&io = impl->io] { io.run(); });
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Server::Server(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() { stop(); }

void Server::stop() {
  if (impl_ == nullptr || impl_->stopping.exchange(true)) return;
  asio::post(impl_->io, [impl = impl_] {
    error_code ignored;
    impl->acceptor.close(ignored);
    for (const auto& [raw, weak] : impl->under_way) {
      if (const auto out = weak.lock()) out->vanish();
    }
  });
  impl_->workers.join();  // handlers see that their clients are gone
  asio::post(impl_->io, [impl = impl_] { impl->io.stop(); });
  impl_->thread.join();
  impl_->io.restart();
  impl_->io.poll();  // what was ready to end, ends
}

std::string Server::endpoint() const {
  error_code ignored;
  const tcp::endpoint local = impl_->acceptor.local_endpoint(ignored);
  const std::string address = local.address().to_string();
  return (local.address().is_v6() ? "[" + address + "]" : address) + ":" +
         std::to_string(local.port());
}

Result<std::optional<ServerOptions>> options_at(std::string_view text, std::uint16_t standard,
                                                bool guarded) {
  ServerOptions out;
  out.if_free = text == "auto";
  if (text == "off" || (out.if_free && guarded)) return std::optional<ServerOptions>();
  if (out.if_free) {
    out.port = standard;
    return std::optional(std::move(out));
  }
  const std::size_t colon = text.rfind(':');
  std::uint16_t port = 0;
  const std::string_view digits = text.substr(std::min(colon + 1, text.size()));
  const auto [end, failed] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  const bool formed = colon != std::string_view::npos && colon > 0 && !digits.empty() &&
                      failed == std::errc() && end == digits.data() + digits.size();
  if (!formed) return invalid("http", "ADDRESS:PORT, auto or off", std::string(text));
  std::string_view host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  out.address = host == "localhost" ? "127.0.0.1" : host;
  out.port = port;
  return std::optional(std::move(out));
}

Result<std::vector<std::string>> read_tokens(const std::string& path) {
  constexpr std::size_t kLeast = 16;
  std::ifstream file(path);
  if (!file) return Error{ErrorCode::kNotFound, path + ": expected a file of tokens, found none"};
  std::vector<std::string> out;
  for (std::string line; std::getline(file, line);) {
    while (!line.empty() && std::isspace(static_cast<unsigned char>(line.back()))) line.pop_back();
    if (line.empty() || line[0] == '#') continue;
    if (line.size() < kLeast) {
      return invalid(path + ": token", "at least 16 characters", line.size());
    }
    out.push_back(line);
  }
  if (out.empty()) return invalid(path, "at least one token", "none");
  return out;
}

}  // namespace memslot::http
