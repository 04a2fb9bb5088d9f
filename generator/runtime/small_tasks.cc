// `tokenize` and `attest`.
#include "generator/runtime/task_arguments.h"
#include "generator/runtime/task_events.h"
#include "generator/runtime/tasks.h"
#include "shared/base/version.h"

namespace memslot {

using nlohmann::json;

Result<std::string> tokenize_task(const TaskContext& context, std::string_view arguments) {
  MEMSLOT_TRY(const TextArguments parsed, tokenize_arguments(arguments));
  const Tokenizer* tokenizer = context.engine.tokenizer;
  if (tokenizer == nullptr) {
    return Error{ErrorCode::kNotFound, "tokenizer: expected one in the model file, found none"};
  }
  std::vector<std::int32_t> ids;
  if (parsed.ids) ids = *parsed.ids;
  if (parsed.text) {
    MEMSLOT_TRY(ids, tokenizer->encode(*parsed.text, {.add_bos = tokenizer->add_bos()}));
  }
  json pieces = json::array();
  for (const std::int32_t id : ids) {
    MEMSLOT_TRY(std::string piece, tokenizer->decode({&id, 1}));
    pieces.push_back(std::move(piece));
  }
  MEMSLOT_TRY(std::string text, tokenizer->decode(ids));
  return dump(json{
      {"type", "tokens"}, {"ids", ids}, {"pieces", std::move(pieces)}, {"text", std::move(text)}});
}

Result<std::string> attest_task(const TaskContext& context, std::string_view arguments) {
  MEMSLOT_TRY(no_arguments(arguments));
  Engine& engine = context.engine;
  Sha256 now;
  MEMSLOT_TRY(engine.scheduler.run([&]() -> Status {
    MEMSLOT_TRY(now, engine.gpt.attest());
    return ok();
  }));
  const BackendInfo& backend = engine.gpt.backend().info();
  return dump(json{{"type", "attest"},
                   {"digest", now.hex()},
                   {"at_load", engine.base_digest.hex()},
                   {"equal", now == engine.base_digest},
                   {"model", engine.model_digest.hex()},
                   {"model_name", engine.gpt.config().name},
                   {"weights", std::string(dtype_name(engine.gpt.options().weights))},
                   {"backend", backend.name + " (" + backend.library + ")"},
                   {"isa", backend.isa},
                   {"row_invariant", backend.row_invariant},
                   {"build", std::string(build_version())}});
}

}  // namespace memslot
