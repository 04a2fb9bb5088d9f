#pragma once
// The generator's HTTP face: what OpenAI's clients speak, on top of the task `generate`
// (docs/http.md).
//
//   POST /v1/completions, /v1/chat/completions   whole, or as server-sent events with "stream"
//   GET  /v1/models, /v1/models/NAME
//   GET  /healthz (the process answers), /readyz (it has its controller)
//   GET  /metrics (docs/metrics.md)
//
// Beyond OpenAI's fields a request may have `memory` (auto, base, ID or ID@VERSION) and
// `namespace`; answers have `memory` {"used", "trace"}. Fields that are not known, or ask for what
// is not done here, are refused (400), so that nothing is silently left out.
//
// Threads: handle() on any; the engine must outlive it, and `metrics` be callable on any.
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "generator/runtime/engine.h"
#include "shared/http/http_server.h"

namespace memslot {

class OpenAiApi {
 public:
  // `metrics`: the page of GET /metrics.
  OpenAiApi(Engine& engine, std::function<std::string()> metrics)
      : engine_(engine), metrics_(std::move(metrics)) {}
  void handle(http::Exchange& exchange);

 private:
  Engine& engine_;
  const std::function<std::string()> metrics_;
};

struct ChatMessage {
  std::string role, content;
};
// The ids of a conversation, ready for the assistant's answer, by the model's own template. What
// users wrote never becomes a control token.
// kNotSupported: no template, or another than ChatML.
Result<std::vector<std::int32_t>> chat_prompt(const Tokenizer& tokenizer,
                                              const std::vector<ChatMessage>& messages);

}  // namespace memslot
