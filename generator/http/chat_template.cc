// ChatML, the one template that is understood:
//
//   <|im_start|>ROLE \n CONTENT <|im_end|> \n      of every message, then <|im_start|>assistant \n
//
// Jinja templates are programs; of this one only the default system message varies between models.
#include "generator/http/openai_api.h"

namespace memslot {
namespace {

constexpr std::string_view kStart = "<|im_start|>", kEnd = "<|im_end|>";

// What the template says where a conversation does not begin with a system message; "" for nothing.
std::string default_system(std::string_view text) {
  const std::string opening = std::string(kStart) + "system\n";
  const std::size_t from = text.find(opening);
  if (from == std::string_view::npos) return "";
  const std::size_t begin = from + opening.size(), end = text.find(kEnd, begin);
  const std::string_view found =
      text.substr(begin, end == std::string_view::npos ? 0 : end - begin);
  return found.find('{') == std::string_view::npos && found.find('\'') == std::string_view::npos
             ? std::string(found)
             : "";
}

}  // namespace

Result<std::vector<std::int32_t>> chat_prompt(const Tokenizer& tokenizer,
                                              const std::vector<ChatMessage>& messages) {
  const std::string& text = tokenizer.chat_template();
  if (text.find(kStart) == std::string::npos || text.find(kEnd) == std::string::npos) {
    return Error{ErrorCode::kNotSupported,
                 "chat template: expected one of the ChatML form in the model file, found " +
                     std::string(text.empty() ? "none" : "another")};
  }
  std::vector<ChatMessage> all;
  const std::string system = default_system(text);
  if (!system.empty() && (messages.empty() || messages[0].role != "system")) {
    all.push_back({"system", system});
  }
  all.insert(all.end(), messages.begin(), messages.end());
  std::vector<std::int32_t> out;
  const auto add = [&](std::string_view piece, bool control) -> Status {
    MEMSLOT_TRY(const auto ids, tokenizer.encode(piece, {.parse_special = control}));
    if (control && ids.size() != 1) {
      return corrupt("chat template's token " + std::string(piece), "one id", ids.size());
    }
    out.insert(out.end(), ids.begin(), ids.end());
    return ok();
  };
  for (const ChatMessage& message : all) {
    MEMSLOT_TRY(add(kStart, true));
    MEMSLOT_TRY(add(message.role + "\n" + message.content, false));
    MEMSLOT_TRY(add(kEnd, true));
    MEMSLOT_TRY(add("\n", false));
  }
  MEMSLOT_TRY(add(kStart, true));
  MEMSLOT_TRY(add("assistant\n", false));
  return out;
}

}  // namespace memslot
