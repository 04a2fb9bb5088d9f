#include "generator/http/openai_api.h"

#include <nlohmann/json.hpp>
#include <set>

#include "generator/runtime/argument_reader.h"
#include "generator/runtime/task_events.h"
#include "generator/runtime/tasks.h"
#include "shared/base/rng.h"
#include "shared/memory/record.h"  // slug
#include "shared/trace/event.h"    // trace_id

namespace memslot {
namespace {

using nlohmann::json;

constexpr int kCompletionTokens = 16;  // OpenAI's default
constexpr int kChatTokens = 512;

std::string model_id(const Engine& engine) { return slug(engine.gpt.config().name); }

// --- requests ------------------------------------------------------------------------------------

struct Asked {
  bool chat = false, stream = false, usage_in_stream = false;
  int top = -1;    // alternatives of each token; -1: no log-probabilities at all
  json arguments;  // of the task
};

// Fields of OpenAI's that are accepted only with the value that changes nothing.
void read_neutral(ArgumentReader& in) {
  const std::pair<const char*, json> neutral[] = {{"n", 1},
                                                  {"best_of", 1},
                                                  {"echo", false},
                                                  {"presence_penalty", 0},
                                                  {"suffix", nullptr},
                                                  {"frequency_penalty", 0},
                                                  {"logit_bias", json::object()}};
  for (const auto& [name, value] : neutral) {
    const json* found = in.take(name);
    if (found == nullptr || found->is_null() || *found == value) continue;
    if (found->is_number() && value.is_number() && found->get<double>() == value.get<double>()) {
      continue;
    }
    in.wrong(name, value.dump() + ": nothing else is done here", *found);
  }
  for (const char* ignored : {"user", "metadata", "store"}) in.take(ignored);
}

void read_prompt(ArgumentReader& in, json* arguments) {
  const json* prompt = in.take("prompt");
  if (prompt == nullptr) return in.fail("prompt", "a text or a list of token ids", "none");
  const bool listed = prompt->is_array() && prompt->size() == 1 && !(*prompt)[0].is_number();
  const json& one = listed ? (*prompt)[0] : *prompt;
  if (one.is_string()) {
    (*arguments)["prompt"] = one;
  } else if (one.is_array() && !one.empty() && one[0].is_number_integer()) {
    (*arguments)["ids"] = one;
  } else {
    in.wrong("prompt", "one text, or one list of token ids", *prompt);
  }
}

// A message's content is a text, or a list of parts of type text.
bool content_of(const json& message, std::string* out) {
  const json content = message.value("content", json());
  if (content.is_string()) {
    *out = content.get<std::string>();
    return true;
  }
  if (!content.is_array()) return false;
  for (const json& part : content) {
    const bool is_text = part.is_object() && part.value("type", json()) == "text" &&
                         part.value("text", json()).is_string();
    if (!is_text) return false;
    *out += part["text"].get<std::string>();
  }
  return true;
}

void read_messages(ArgumentReader& in, const Tokenizer& tokenizer, json* arguments) {
  const json* list = in.take("messages");
  if (list == nullptr || !list->is_array() || list->empty()) {
    return in.fail("messages", "a list of at least one message", "none");
  }
  std::vector<ChatMessage> messages;
  static const std::set<std::string> kRoles = {"system", "user", "assistant", "developer"};
  for (const json& item : *list) {
    ChatMessage one;
    const bool formed = item.is_object() && item.value("role", json()).is_string() &&
                        kRoles.contains(item["role"].get<std::string>()) &&
                        content_of(item, &one.content);
    if (!formed) return in.wrong("messages", "a role and a text in each", item);
    one.role = item["role"].get<std::string>();
    if (one.role == "developer") one.role = "system";
    messages.push_back(std::move(one));
  }
  auto ids = chat_prompt(tokenizer, messages);
  if (!ids) return in.fail(ids.error());
  (*arguments)["ids"] = std::move(ids).value();
}

void read_stop(ArgumentReader& in, json* arguments) {
  const json* stop = in.take("stop");
  if (stop == nullptr || stop->is_null()) return;
  const json list = stop->is_string() ? json::array({*stop}) : *stop;
  const bool texts = list.is_array() && list.size() <= 4 &&
                     std::ranges::all_of(list, [](const json& s) { return s.is_string(); });
  if (!texts) return in.wrong("stop", "a text, or a list of at most 4", *stop);
  (*arguments)["stop"] = list;
}

// A number, or null for the default.
void pass_number(ArgumentReader& in, const char* name, const char* as, json fallback,
                 json* arguments) {
  const json* found = in.take(name);
  if (found != nullptr && !found->is_null() && !found->is_number()) {
    return in.wrong(name, "a number", *found);
  }
  const bool given = found != nullptr && !found->is_null();
  if (given) fallback = *found;
  if (!fallback.is_null()) (*arguments)[as] = std::move(fallback);
}

void read_log_probs(ArgumentReader& in, Asked* out) {
  const json* wanted = in.take("logprobs");
  const json* top = in.take("top_logprobs");
  const auto count = [&](const char* name, const json& value, int most) {
    if (value.is_number_integer() && value >= 0 && value <= most) return value.get<int>();
    in.wrong(name, "0 to " + std::to_string(most), value);
    return -1;
  };
  if (!out->chat) {
    if (wanted != nullptr && !wanted->is_null()) out->top = count("logprobs", *wanted, 20);
    if (top != nullptr) in.wrong("top_logprobs", "only in a chat", *top);
    return;
  }
  if (wanted != nullptr && !wanted->is_null() && !wanted->is_boolean()) {
    in.wrong("logprobs", "true or false", *wanted);
  } else if (wanted != nullptr && wanted->is_boolean() && wanted->get<bool>()) {
    out->top = top == nullptr || top->is_null() ? 0 : count("top_logprobs", *top, 20);
  } else if (top != nullptr && !top->is_null()) {
    in.wrong("top_logprobs", "only with logprobs", *top);
  }
}

Result<Asked> asked_of(Engine& engine, const std::string& body, bool chat) {
  ArgumentReader in(body);
  Asked out;
  out.chat = chat;
  json& a = out.arguments;
  a["policy"] = "";
  std::string model, memory = "auto", ns = "default";
  in.text("model", &model);
  if (!model.empty() && model != model_id(engine)) {
    in.fail(
        Error{ErrorCode::kNotFound, "model: expected " + model_id(engine) + ", found " + model});
  }
  if (chat)
    read_messages(in, *engine.tokenizer, &a);
  else
    read_prompt(in, &a);
  in.text("memory", &memory);
  in.text("namespace", &ns);
  in.flag("stream", &out.stream);
  if (const json* options = in.take("stream_options"); options != nullptr && !options->is_null()) {
    const json usage = options->is_object() ? options->value("include_usage", json(false)) : json();
    if (usage.is_boolean())
      out.usage_in_stream = usage.get<bool>();
    else
      in.wrong("stream_options", "{\"include_usage\": true or false}", *options);
  }
  a["memory"] = memory;
  a["namespaces"] = {ns};
  pass_number(in, "max_tokens", "max_tokens", chat ? json() : json(kCompletionTokens), &a);
  if (chat) {
    pass_number(in, "max_completion_tokens", "max_tokens", a.value("max_tokens", json(kChatTokens)),
                &a);
  }
  pass_number(in, "temperature", "temperature", 1.0, &a);
  pass_number(in, "top_p", "top_p", 1.0, &a);
  pass_number(in, "seed", "seed", random_nonce() >> 2, &a);
  read_stop(in, &a);
  read_log_probs(in, &out);
  if (out.top > 0) a["top_log_probs"] = out.top;
  read_neutral(in);
  MEMSLOT_TRY(in.finish());
  return out;
}

// --- answers -------------------------------------------------------------------------------------

class Answering {
 public:
  Answering(Engine& engine, http::Exchange& exchange, Asked asked)
      : engine_(engine), exchange_(exchange), asked_(std::move(asked)) {}
  void run();

 private:
  void on_event(const std::string& event);
  void on_step(const json& step);
  json envelope() const;
  json choice(const std::string& text, const json& finish, const json& log_probs) const;
  json log_probs_of(const json& step);
  std::string token_text(std::int32_t id) const;
  json memory() const;
  json usage() const;
  void send(const json& chunk) { exchange_.write("data: " + dump(chunk) + "\n\n"); }
  const char* object() const;

  Engine& engine_;
  http::Exchange& exchange_;
  const Asked asked_;
  const std::string id_ = trace::trace_id(random_nonce());
  const std::int64_t created_ = engine_.clock.unix_ms() / 1000;
  std::string trace_, text_;
  std::vector<std::string> used_;  // memories, in the order of their first step
  json log_probs_;
  std::size_t prompt_tokens_ = 0, tokens_ = 0, offset_ = 0;
  bool begun_ = false;
};

const char* Answering::object() const {
  if (!asked_.chat) return "text_completion";
  return asked_.stream ? "chat.completion.chunk" : "chat.completion";
}

json Answering::memory() const {
  json out = {{"used", used_}};
  if (!trace_.empty()) out["trace"] = trace_;
  return out;
}

json Answering::usage() const {
  return {{"prompt_tokens", prompt_tokens_},
          {"completion_tokens", tokens_},
          {"total_tokens", prompt_tokens_ + tokens_}};
}

json Answering::envelope() const {
  return {{"id", (asked_.chat ? "chatcmpl-" : "cmpl-") + id_},
          {"object", object()},
          {"created", created_},
          {"model", model_id(engine_)}};
}

json Answering::choice(const std::string& text, const json& finish, const json& log_probs) const {
  json out = {{"index", 0}, {"finish_reason", finish}, {"logprobs", log_probs}};
  if (!asked_.chat) {
    out["text"] = text;
  } else if (asked_.stream) {
    out["delta"] = text.empty() ? json::object() : json{{"content", text}};
  } else {
    out["message"] = {{"role", "assistant"}, {"content", text}};
  }
  return out;
}

std::string Answering::token_text(std::int32_t id) const {
  auto text = engine_.tokenizer->decode({&id, 1});
  return text ? std::move(text).value() : std::string();
}

json Answering::log_probs_of(const json& step) {
  if (asked_.top < 0) return nullptr;
  json content = json::array(), tokens = json::array(), values = json::array(),
       offsets = json::array(), tops = json::array();
  for (std::size_t i = 0; i < step["tokens"].size(); ++i) {
    const std::string token = token_text(step["tokens"][i].get<std::int32_t>());
    const auto bytes = [](const std::string& text) {
      json out = json::array();
      for (const char c : text) out.push_back(static_cast<unsigned char>(c));
      return out;
    };
    json list = json::array(), map = json::object();
    if (step.contains("top_log_probs")) {
      for (const json& top : step["top_log_probs"][i]) {
        const std::string other = token_text(top[0].get<std::int32_t>());
        list.push_back({{"token", other}, {"logprob", top[1]}, {"bytes", bytes(other)}});
        map[other] = top[1];
      }
    }
    content.push_back({{"token", token},
                       {"logprob", step["log_probs"][i]},
                       {"bytes", bytes(token)},
                       {"top_logprobs", std::move(list)}});
    tokens.push_back(token);
    values.push_back(step["log_probs"][i]);
    offsets.push_back(offset_);
    tops.push_back(std::move(map));
    offset_ += token.size();
  }
  if (asked_.chat) return {{"content", std::move(content)}};
  return {{"tokens", std::move(tokens)},
          {"token_logprobs", std::move(values)},
          {"text_offset", std::move(offsets)},
          {"top_logprobs", asked_.top > 0 ? std::move(tops) : json()}};
}

void Answering::on_step(const json& step) {
  const std::string name = step.value("memory", "base");
  if (std::ranges::find(used_, name) == used_.end()) used_.push_back(name);
  tokens_ += step["tokens"].size();
  const std::string text = step.value("text", "");
  const json log_probs = log_probs_of(step);
  if (!asked_.stream) {
    text_ += text;
    if (log_probs.is_null()) return;
    if (log_probs_.is_null()) log_probs_ = json::object();
    for (const auto& [key, list] : log_probs.items()) {
      if (!list.is_array()) {
        log_probs_[key] = list;
        continue;
      }
      for (const json& item : list) log_probs_[key].push_back(item);
    }
    return;
  }
  json chunk = envelope();
  chunk["choices"] = {choice(text, nullptr, log_probs)};
  chunk["memory"] = {{"active", name}};
  send(chunk);
}

void Answering::on_event(const std::string& text) {
  const json event = json::parse(text);
  const std::string type = event.value("type", "");
  if (type == "step") return on_step(event);
  if (type != "start") return;
  prompt_tokens_ = event.value("prompt_tokens", std::size_t{0});
  trace_ = event.value("trace", "");
  if (!asked_.stream) return;
  exchange_.begin_stream("text/event-stream; charset=utf-8");
  begun_ = true;
  if (!asked_.chat) return;
  json chunk = envelope();
  chunk["choices"] = {{{"index", 0},
                       {"finish_reason", nullptr},
                       {"logprobs", nullptr},
                       {"delta", {{"role", "assistant"}, {"content", ""}}}}};
  send(chunk);
}

void Answering::run() {
  const TaskContext context{engine_, exchange_.gone(),
                            [this](const std::string& event) { on_event(event); }};
  const auto done = generate_task(context, asked_.arguments.dump());
  if (!done) {
    if (!begun_) return exchange_.respond(http::error_response(done.error()));
    send(json::parse(http::error_response(done.error()).body));
    return exchange_.end_stream();
  }
  const std::string ended = json::parse(done.value()).value("finish", "");
  const char* finish = ended == "stop" || ended == "eos" ? "stop" : "length";
  json last = envelope();
  last["choices"] = {choice(text_, finish, log_probs_)};
  last["memory"] = memory();
  if (!asked_.stream) {
    last["usage"] = usage();
    return exchange_.respond({200, dump(last)});
  }
  send(last);
  if (asked_.usage_in_stream) {
    json counted = envelope();
    counted["choices"] = json::array();
    counted["usage"] = usage();
    send(counted);
  }
  exchange_.write("data: [DONE]\n\n");
  exchange_.end_stream();
}

json model_json(const Engine& engine) {
  return {{"id", model_id(engine)},
          {"object", "model"},
          {"created", 0},
          {"owned_by", "memslot"},
          {"context_length", engine.gpt.config().context}};
}

}  // namespace

void OpenAiApi::handle(http::Exchange& exchange) {
  const http::Request& request = exchange.request();
  const bool get = request.method == "GET" || request.method == "HEAD";
  const std::string& path = request.path;
  const bool chat = path == "/v1/chat/completions";
  const bool writes = chat || path == "/v1/completions";
  const bool one_model = path.starts_with("/v1/models/");
  const bool looks = path == "/healthz" || path == "/readyz" || path == "/metrics" ||
                     path == "/v1/models" || one_model;
  if (!writes && !looks) {
    return exchange.respond(http::error_response(404, "path: expected one of docs/http.md"));
  }
  if (writes ? request.method != "POST" : !get) {
    return exchange.respond(http::other_method(writes ? "POST" : "GET, HEAD"));
  }
  if (path == "/healthz") return exchange.respond({200, R"({"status":"ok"})"});
  if (path == "/readyz") {
    if (engine_.link.connected()) return exchange.respond({200, R"({"status":"ready"})"});
    return exchange.respond(http::error_response(503, "controller: expected it there, found none"));
  }
  if (path == "/metrics") return exchange.respond({200, metrics_(), metrics::kContentType});
  if (path == "/v1/models") {
    return exchange.respond(
        {200, dump(json{{"object", "list"}, {"data", json::array({model_json(engine_)})}})});
  }
  if (one_model) {
    if (path.substr(std::string_view("/v1/models/").size()) == model_id(engine_)) {
      return exchange.respond({200, dump(model_json(engine_))});
    }
    return exchange.respond(http::error_response(404, "model: expected " + model_id(engine_)));
  }
  if (engine_.tokenizer == nullptr) {
    return exchange.respond(http::error_response(501, "tokenizer: expected one in the model file"));
  }
  auto asked = asked_of(engine_, request.body, chat);
  if (!asked) return exchange.respond(http::error_response(asked.error()));
  Answering(engine_, exchange, std::move(asked).value()).run();
}

}  // namespace memslot
