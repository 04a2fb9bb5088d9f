#pragma once
// An HTTP/1.1 server for programs: requests with a body, answers whole or as a stream.
//
// Operation:   one thread does all input and output; handlers run on `workers` threads. A client
//              that reads slowly holds up nobody: what waits for it is bounded, and over that, or
//              after `write_time`, it is dropped. One that leaves is told to the handler (gone()).
// Bad input:   malformed 400; header over 16 KiB 431; body over `max_body` 413; a header or body
//              that does not come in time is dropped; more than `max_connections` are closed at
//              once.
// Rights:      judged by the header, before the body is read. On a loopback address Host must be
//              one (DNS rebinding), and elsewhere there must be tokens. Origin, where a browser
//              sends it, must be this server's own. With tokens every path but the open ones needs
//              one of them as a bearer. Without them everybody on this host may ask, whatever
//              bearer they send, but a browser changes something only with `browser_token`.
// Lifecycle:   start() listens; stop() (also by the destructor) ends streams, waits for handlers.
// Concurrency: stop() from one thread; an Exchange from its handler's.
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "shared/base/error.h"
#include "shared/http/http_metrics.h"

namespace memslot::http {

struct Request {
  std::string method;
  std::string path;                            // decoded, without the query
  std::map<std::string, std::string> query;    // decoded
  std::map<std::string, std::string> headers;  // names in lower case; the last of equal ones
  std::string body;
  std::string token;  // the known one that it came with; "" without
};

struct Response {
  unsigned status = 200;
  std::string body;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers{};
};

// {"error": {"message", "type", "code"}}, with the status that stands for the code.
Response error_response(const Error& error);
Response error_response(unsigned status, std::string_view message);
// 405, with the methods that the path knows, "GET, HEAD".
Response other_method(std::string allow);

// One request being answered: respond(), or begin_stream(), write()... and end_stream().
class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual const Request& request() const = 0;
  virtual void respond(Response response) = 0;
  virtual void begin_stream(std::string content_type) = 0;
  // False: the client is gone.
  virtual bool write(std::string bytes) = 0;
  virtual void end_stream() = 0;
  virtual std::stop_token gone() const = 0;
};

bool is_probe(const std::string& path);  // /healthz, /readyz

struct ServerOptions {
  std::string address = "127.0.0.1";
  std::uint16_t port = 0;           // 0: any that is free
  bool if_free = false;             // a port that is taken is no error: there is no server then
  std::vector<std::string> tokens;  // who may ask; empty: everybody, on loopback only
  std::string browser_token;        // without tokens: lets a browser change something; "": none may
  // What may be looked at without a token.
  std::function<bool(const std::string& path)> open = is_probe;
  std::size_t max_body = std::size_t{1} << 20;
  std::map<std::string, std::size_t> max_body_of{};  // of paths that take files
  std::size_t max_waiting = std::size_t{4} << 20;    // bytes of one answer that wait to be read
  int max_connections = 256;
  int workers = 16;
  std::chrono::milliseconds header_time{10000};  // from a request's first byte to its last header
  std::chrono::milliseconds body_time{30000};
  std::chrono::milliseconds idle_time{60000};  // between requests
  std::chrono::milliseconds write_time{30000};
  Metrics* metrics = nullptr;  // outlives the server; null: nothing is counted
};

class Server {
 public:
  using Handler = std::function<void(Exchange&)>;
  // kInvalidArgument: an address that is none, or beyond loopback without tokens; kBusy: the port
  // is taken; kIo. Null with `if_free`, where the port is taken: the log says so.
  static Result<std::unique_ptr<Server>> start(ServerOptions options, Handler handler);
  ~Server();
  void stop();
  std::string endpoint() const;  // "127.0.0.1:7402"

 private:
  struct Impl;
  explicit Server(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

// Where the setting `http` of both programs says: "ADDRESS:PORT", "[::1]:PORT"; "auto": this host's
// `standard` port, where it is free; "off": nowhere, nullopt. `guarded`: the program's link has
// keys or is a socket with permissions, and there are no tokens: "auto" is then "off", so that
// nobody gets past them by asking over HTTP instead. kInvalidArgument.
Result<std::optional<ServerOptions>> options_at(std::string_view text, std::uint16_t standard,
                                                bool guarded);
// One token a line of a file, empty lines and those with # left out. kNotFound, kIo,
// kInvalidArgument (none, or one of under 16 characters).
Result<std::vector<std::string>> read_tokens(const std::string& path);

}  // namespace memslot::http
