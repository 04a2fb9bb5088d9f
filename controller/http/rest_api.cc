#include "controller/http/rest_api.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "controller/http/web_files.h"
#include "shared/base/json_depth.h"
#include "shared/base/json_dump.h"
#include "shared/base/metrics.h"
#include "shared/base/version.h"

namespace memslot {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kApi = "/api/v1";
constexpr std::size_t kLeastToken = 16;
constexpr const char* kFileType = "application/octet-stream";

std::vector<std::string> parts_of(std::string_view path) {
  std::vector<std::string> out;
  while (!path.empty()) {
    path.remove_prefix(1);  // the slash
    const std::size_t end = std::min(path.find('/'), path.size());
    out.emplace_back(path.substr(0, end));
    path.remove_prefix(end);
  }
  return out;
}

bool is_name(std::string_view part) { return part.starts_with('{'); }

// What the parts of `pattern` in braces stand for; none where it is another path.
std::optional<std::vector<std::string>> match(const std::vector<std::string>& pattern,
                                              const std::vector<std::string>& path) {
  if (pattern.size() != path.size()) return std::nullopt;
  std::vector<std::string> out;
  for (std::size_t i = 0; i < path.size(); ++i) {
    if (is_name(pattern[i])) {
      if (path[i].empty()) return std::nullopt;
      out.push_back(path[i]);
    } else if (pattern[i] != path[i]) {
      return std::nullopt;
    }
  }
  return out;
}

Result<std::uint64_t> number_of(const std::string& name, const std::string& text) {
  std::uint64_t value = 0;
  const auto end = std::from_chars(text.data(), text.data() + text.size(), value);
  if (end.ec != std::errc() || end.ptr != text.data() + text.size() || text.empty()) {
    return invalid(name, "a number", text);
  }
  return value;
}

SharedBytes bytes_of_body(const std::string& body) {
  const auto view = std::as_bytes(std::span(body));
  return share_bytes({view.begin(), view.end()});
}

std::string text_of(const SharedBytes& bytes) {
  return {reinterpret_cast<const char*>(bytes->data()), bytes->size()};
}

std::string error_event(const Error& error) {
  Json out = Json::parse(http::error_response(error).body);
  out["type"] = "error";
  return dump(out);
}

}  // namespace

HttpUser everybody() { return {.token = "", .link = "http:everybody", .access = {}}; }

Result<std::vector<HttpUser>> read_http_users(const std::string& path) {
  std::ifstream file(path);
  if (!file) return Error{ErrorCode::kNotFound, path + ": expected a file of tokens, found none"};
  std::vector<HttpUser> out;
  for (std::string line; std::getline(file, line);) {
    std::istringstream in(line.substr(0, line.find('#')));
    std::string token, names, more;
    if (!(in >> token)) continue;
    if (!(in >> names) || (in >> more)) {
      return invalid(path, "lines TOKEN NAMESPACE,... (or *)",
                     "one of another form, after " + std::to_string(out.size()) + " tokens");
    }
    if (token.size() < kLeastToken) {
      return invalid(path + ": token", "at least 16 characters", token.size());
    }
    if (std::ranges::any_of(out, [&](const HttpUser& u) { return u.token == token; })) {
      return invalid(path + ": token", "each once", "one twice");
    }
    auto access = Access::of(names);
    if (!access) return access.error().with_context(path);
    out.push_back({token, "http:" + std::to_string(out.size() + 1), std::move(access).value()});
  }
  if (out.empty()) return invalid(path, "at least one token", "none");
  return out;
}

// One request on its way through a route.
struct RestApi::Call {
  http::Exchange& exchange;
  const http::Request& request;
  const std::vector<std::string> names;  // of the path
  LinkClient& link;
  const HttpUser& user;
  const RestParts& parts;

  void fail(const Error& error) { exchange.respond(http::error_response(error)); }
  void reply(std::string json) { exchange.respond({200, std::move(json)}); }
  std::string memory() const {
    const auto version = request.query.find("version");
    return names[0] + "/" + names[1] +
           (version == request.query.end() ? "" : "@" + version->second);
  }
  // The query as arguments; those named in `numbers` and `flags` become what they are called.
  Result<Json> query(const std::set<std::string>& numbers,
                     const std::set<std::string>& flags = {}) const {
    Json out = Json::object();
    for (const auto& [name, value] : request.query) {
      if (numbers.contains(name)) {
        MEMSLOT_TRY(out[name], number_of(name, value));
      } else if (flags.contains(name)) {
        if (value != "true" && value != "false") return invalid(name, "true or false", value);
        out[name] = value == "true";
      } else {
        out[name] = value;
      }
    }
    return out;
  }
  Result<Json> body() const {
    if (request.body.empty()) return Json(Json::object());
    if (!json_depth_fits(request.body)) return invalid("body nesting", "at most 64", "deeper");
    Json out = Json::parse(request.body, nullptr, /*allow_exceptions=*/false);
    if (!out.is_object()) return invalid("body", "a JSON object", request.body.substr(0, 40));
    return out;
  }
  void ask(const std::string& verb, const Result<Json>& arguments, SharedBytes part = nullptr) {
    if (!arguments) return fail(arguments.error());
    auto answer = link.ask(verb, arguments.value(), std::move(part));
    if (!answer) return fail(answer.error());
    if (answer.value().part == nullptr) return reply(std::move(answer.value().json));
    http::Response file{200, text_of(answer.value().part), kFileType};
    file.headers = {{"Content-Disposition", "attachment"}};
    exchange.respond(std::move(file));
  }
  // A task: its last event.
  void run(const std::string& kind, const Result<Json>& arguments) {
    if (!arguments) return fail(arguments.error());
    const auto last = link.run(
        kind, arguments.value().dump(), [](const std::string&) { return true; }, exchange.gone());
    last ? reply(last.value()) : fail(last.error());
  }
  // A task: all its events, as they come.
  void stream(const std::string& kind, const Result<Json>& arguments) {
    if (!arguments) return fail(arguments.error());
    bool begun = false;
    const auto send = [&](const std::string& event) {
      if (!begun) exchange.begin_stream("text/event-stream");
      begun = true;
      return exchange.write("data: " + event + "\n\n");
    };
    const auto last = link.run(kind, arguments.value().dump(), send, exchange.gone());
    if (!last && !begun) return fail(last.error());
    send(last ? last.value() : error_event(last.error()));
    exchange.end_stream();
  }
};

struct RestApi::Route {
  const char* method;
  const char* path;  // below /api/v1
  std::vector<std::string> query;
  void (*answer)(Call&);
};

const std::vector<RestApi::Route>& RestApi::table() {
  static const std::vector<std::string> kNone;
  static const auto of_memory = [](const Call& call) { return Json{{"memory", call.memory()}}; };
  static const auto of_run = [](const Call& call) { return Json{{"run", call.names[0]}}; };
  static const auto of_trace = [](const Call& call) { return Json{{"trace", call.names[0]}}; };
  static const std::vector<Route> kTable = {
      {"GET", "/openapi.json", kNone, [](Call& c) { c.reply(std::string(openapi_document())); }},
      {"GET", "/session", kNone,
       [](Call& c) {
         const Access& access = c.user.access;
         const Json names = access.all_namespaces ? Json() : Json(access.namespaces);
         // What a browser may do: with no token at all it may only look.
         c.reply(Json{{"namespaces", names},
                      {"may_change", !c.request.token.empty()},
                      {"traces", c.parts.traces},
                      {"learning", c.parts.learning},
                      {"build", build_version()}}
                     .dump());
       }},
      {"GET", "/status", kNone,
       [](Call& c) {
         const auto peers = c.link.ask("peers.ls", Json::object());
         const auto usage = c.link.ask("bank.usage", Json::object());
         if (!peers) return c.fail(peers.error());
         if (!usage) return c.fail(usage.error());
         Json out = Json::parse(peers.value().json);
         out.update(Json::parse(usage.value().json));
         c.reply(out.dump());
       }},
      {"GET",
       "/memories",
       {"q", "namespace", "kind", "sort", "order", "offset", "limit"},
       [](Call& c) {
         auto arguments = c.query({"offset", "limit"});
         if (arguments && arguments.value().contains("q")) {
           arguments.value()["query"] = arguments.value()["q"];
           arguments.value().erase("q");
         }
         c.ask("bank.find", arguments);
       }},
      {"POST",
       "/memories/import",
       {"namespace", "id"},
       [](Call& c) { c.ask("bank.import", c.query({}), bytes_of_body(c.request.body)); }},
      {"GET",
       "/memories/{namespace}/{id}",
       {"version"},
       [](Call& c) { c.ask("bank.show", of_memory(c)); }},
      {"DELETE", "/memories/{namespace}/{id}", kNone,
       [](Call& c) { c.ask("bank.rm", of_memory(c)); }},
      {"GET",
       "/memories/{namespace}/{id}/history",
       {"after"},
       [](Call& c) {
         auto arguments = c.query({"after"});
         if (arguments) arguments.value()["memory"] = c.memory();
         c.ask("bank.history", arguments);
       }},
      {"GET",
       "/memories/{namespace}/{id}/segments",
       {"version"},
       [](Call& c) { c.ask("bank.segments", of_memory(c)); }},
      {"GET",
       "/memories/{namespace}/{id}/map",
       {"others", "version"},
       [](Call& c) {
         auto arguments = c.query({"others"});
         if (arguments) arguments.value().erase("version");
         if (arguments) arguments.value()["memory"] = c.memory();
         c.ask("bank.map", arguments);
       }},
      {"GET",
       "/memories/{namespace}/{id}/export",
       {"version"},
       [](Call& c) { c.ask("bank.export", of_memory(c)); }},
      {"POST", "/memories/{namespace}/{id}/rollback", kNone,
       [](Call& c) {
         auto arguments = c.body();
         if (arguments) arguments.value()["memory"] = c.memory();
         c.ask("bank.rollback", arguments);
       }},
      {"POST", "/learn", kNone,
       [](Call& c) {
         auto arguments = c.body();
         if (arguments) arguments.value()["watch"] = false;
         c.run("learn", arguments);
       }},
      {"GET", "/jobs", {"state"}, [](Call& c) { c.ask("jobs.ls", c.query({})); }},
      {"GET", "/jobs/{job}", kNone,
       [](Call& c) {
         c.ask("jobs.show", Json{{"job", c.names[0]}});
       }},
      {"POST", "/jobs/{job}/cancel", kNone,
       [](Call& c) {
         c.ask("jobs.cancel", Json{{"job", c.names[0]}});
       }},
      {"GET", "/jobs/{job}/events", kNone,
       [](Call& c) {
         c.stream("watch", Json{{"job", c.names[0]}});
       }},
      {"POST", "/generate", kNone, [](Call& c) { c.stream("generate", c.body()); }},
      {"POST", "/score", kNone, [](Call& c) { c.run("score", c.body()); }},
      {"POST", "/tokenize", kNone, [](Call& c) { c.run("tokenize", c.body()); }},
      {"POST", "/attest", kNone, [](Call& c) { c.run("attest", c.body()); }},
      {"GET",
       "/traces",
       {"memory", "source", "policy", "since_unix_ms", "until_unix_ms", "after", "limit"},
       [](Call& c) {
         c.ask("trace.ls", c.query({"since_unix_ms", "until_unix_ms", "limit"}));
       }},
      {"GET",
       "/traces/{trace}",
       {"from", "steps", "candidates"},
       [](Call& c) {
         auto arguments = c.query({"from", "steps"}, {"candidates"});
         if (arguments) arguments.value()["trace"] = c.names[0];
         c.ask("trace.show", arguments);
       }},
      {"DELETE", "/traces/{trace}", kNone, [](Call& c) { c.ask("trace.rm", of_trace(c)); }},
      {"GET", "/traces/{trace}/check", kNone, [](Call& c) { c.ask("trace.check", of_trace(c)); }},
      {"GET", "/traces/{trace}/export", kNone, [](Call& c) { c.ask("trace.export", of_trace(c)); }},
      {"POST", "/traces/{trace}/replay", kNone,
       [](Call& c) {
         auto arguments = c.body();
         if (arguments) arguments.value()["trace"] = c.names[0];
         c.run("replay", arguments);
       }},
      {"GET", "/policy", kNone, [](Call& c) { c.ask("policy.show", Json::object()); }},
      {"GET", "/policy/versions", kNone, [](Call& c) { c.ask("policy.ls", Json::object()); }},
      {"POST", "/policy/load", kNone,
       [](Call& c) { c.ask("policy.load", Json::object(), bytes_of_body(c.request.body)); }},
      {"POST", "/policy/unload", kNone, [](Call& c) { c.ask("policy.unload", Json::object()); }},
      {"POST",
       "/policy/choices",
       {"trace", "policy"},
       [](Call& c) {
         const bool file = !c.request.body.empty();
         c.ask("trace.choices", c.query({}), file ? bytes_of_body(c.request.body) : nullptr);
       }},
      {"GET", "/policy/curves", kNone, [](Call& c) { c.ask("policy.curves", Json::object()); }},
      {"GET", "/policy/comparisons", kNone,
       [](Call& c) { c.ask("training.comparisons", Json::object()); }},
      {"GET", "/policy/training", kNone, [](Call& c) { c.ask("training.ls", Json::object()); }},
      {"POST", "/policy/training", kNone, [](Call& c) { c.ask("training.start", c.body()); }},
      {"POST",
       "/policy/training/tables",
       {"name"},
       [](Call& c) { c.ask("training.table", c.query({}), bytes_of_body(c.request.body)); }},
      {"DELETE", "/policy/training/{run}", kNone, [](Call& c) { c.ask("training.rm", of_run(c)); }},
      {"POST", "/policy/training/{run}/stop", kNone,
       [](Call& c) { c.ask("training.stop", of_run(c)); }},
      {"POST", "/policy/training/{run}/load", kNone,
       [](Call& c) { c.ask("training.load", of_run(c)); }},
      {"POST", "/policy/feedback", kNone,
       [](Call& c) {
         auto arguments = c.body();
         // A browser's numbers end at 2^53.
         if (arguments && arguments.value().value("session", Json()).is_string()) {
           const auto number =
               number_of("session", arguments.value()["session"].get<std::string>());
           if (!number) return c.fail(number.error());
           arguments.value()["session"] = number.value();
         }
         c.ask("policy.feedback", arguments);
       }},
  };
  return kTable;
}

std::vector<std::pair<std::string, std::vector<std::string>>> RestApi::routes() {
  std::vector<std::pair<std::string, std::vector<std::string>>> out;
  for (const Route& route : table()) {
    out.emplace_back(std::string(route.method) + " " + std::string(kApi) + route.path, route.query);
  }
  return out;
}

RestApi::RestApi(RestParts parts) : parts_(std::move(parts)) {
  for (const HttpUser& user : parts_.users) {
    links_[user.token] = std::make_unique<LinkClient>(parts_.connect(user.link));
  }
}

RestApi::~RestApi() = default;

void RestApi::stop() {
  for (const auto& [token, link] : links_) link->stop();
}

bool RestApi::open(const std::string& path) {
  return http::is_probe(path) || (!path.starts_with("/api") && path != "/metrics");
}

// The server has let only known tokens through; without configured ones all are everybody.
const HttpUser& RestApi::user_of(const http::Request& request) const {
  const auto found = std::ranges::find_if(
      parts_.users, [&](const HttpUser& user) { return user.token == request.token; });
  return found == parts_.users.end() ? parts_.users.front() : *found;
}

LinkClient& RestApi::link_of(const http::Request& request) {
  return *links_.at(user_of(request).token);
}

void RestApi::probe(http::Exchange& exchange, bool ready) {
  if (!ready) return exchange.respond({200, R"({"status":"ok"})"});
  const auto answer = links_.begin()->second->ask("peers.ls", Json::object());
  if (!answer) return exchange.respond(http::error_response(answer.error()));
  exchange.respond({200, R"({"status":"ready"})"});
}

void RestApi::handle(http::Exchange& exchange) {
  const http::Request& request = exchange.request();
  const bool looks = request.method == "GET" || request.method == "HEAD";
  if (!request.path.starts_with(kApi)) {
    std::optional<http::Response> file;
    const bool known = http::is_probe(request.path) || request.path == "/metrics" ||
                       (file = web_file(request.path));
    if (!known) {
      return exchange.respond(http::error_response(404, "path: expected one of docs/http.md"));
    }
    if (!looks) return exchange.respond(http::other_method("GET, HEAD"));
    if (file) return exchange.respond(std::move(*file));
    if (request.path == "/metrics") {
      return exchange.respond({200, parts_.metrics(), metrics::kContentType});
    }
    return probe(exchange, request.path == "/readyz");
  }
  const auto path = parts_of(std::string_view(request.path).substr(kApi.size()));
  std::string allow;  // methods that the path knows, where the one asked for is none of them
  for (const Route& route : table()) {
    auto names = match(parts_of(route.path), path);
    if (!names) continue;
    const std::string_view method = request.method == "HEAD" ? "GET" : request.method;
    if (method != route.method) {
      allow += allow.empty() ? "" : ", ";
      allow += std::string_view(route.method) == "GET" ? "GET, HEAD" : route.method;
      continue;
    }
    for (const auto& [name, value] : request.query) {
      if (std::ranges::find(route.query, name) == route.query.end()) {
        return exchange.respond(
            http::error_response(400, "query: expected names of docs/http.md, found " + name));
      }
    }
    Call call{exchange, request, std::move(*names), link_of(request), user_of(request), parts_};
    return route.answer(call);
  }
  exchange.respond(allow.empty() ? http::error_response(404, "path: expected one of docs/http.md")
                                 : http::other_method(std::move(allow)));
}

}  // namespace memslot
