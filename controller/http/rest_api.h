#pragma once
// The controller's HTTP face: REST over the verbs and tasks of docs/formats/tasks.md, and the web
// inspector's files (docs/http.md).
//
// Operation:   each route asks the controller's own link as the client that the request's token
//              stands for: what that may not see, no route shows. Unknown paths, methods, query
//              names and fields are refused, so that none is silently left out.
// Concurrency: handle() on any thread.
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "controller/http/link_client.h"
#include "controller/link/access.h"
#include "shared/http/http_server.h"

namespace memslot {

// Who asks: one for each token, or one for everybody.
struct HttpUser {
  std::string token;  // "" without configured tokens
  std::string link;   // the `user` of its packets (AccessList::grant)
  Access access;
};

// Lines "TOKEN NAMESPACE,..." (or *) of a file, '#' begins a comment. kNotFound, kInvalidArgument
// (none; a token of under 16 characters, or twice).
Result<std::vector<HttpUser>> read_http_users(const std::string& path);
HttpUser everybody();

struct RestParts {
  std::vector<HttpUser> users;
  std::function<std::unique_ptr<Channel>(const std::string& user)> connect;
  std::function<std::string()> metrics;
  bool traces = false;    // generations are recorded
  bool learning = false;  // the policy learns from live sessions
};

class RestApi {
 public:
  explicit RestApi(RestParts parts);
  ~RestApi();
  void handle(http::Exchange& exchange);
  void stop();  // before the link stops: requests under way end with kCancelled
  static bool open(const std::string& path);  // what may be looked at without a token
  // "GET /api/v1/memories/{namespace}/{id}", with the names that its query may have.
  static std::vector<std::pair<std::string, std::vector<std::string>>> routes();

 private:
  struct Call;
  struct Route;
  static const std::vector<Route>& table();
  LinkClient& link_of(const http::Request& request);
  const HttpUser& user_of(const http::Request& request) const;
  void probe(http::Exchange& exchange, bool ready);

  RestParts parts_;
  std::map<std::string, std::unique_ptr<LinkClient>> links_;  // by token
};

}  // namespace memslot
