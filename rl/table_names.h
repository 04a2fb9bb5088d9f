#pragma once
// The names that splits and kinds of streams have in files.
//
// Threads: constants.
#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "rl/gain_table.h"

namespace memslot {

template <class Enum, std::size_t N>
using EnumNames = std::array<std::pair<Enum, std::string_view>, N>;

inline constexpr EnumNames<Split, 3> kSplitNames{
    {{Split::kTrain, "train"}, {Split::kValidation, "validation"}, {Split::kTest, "test"}}};
inline constexpr EnumNames<StreamKind, 4> kStreamKindNames{
    {{StreamKind::kStream, "stream"},
     {StreamKind::kPrompt, "prompt"},
     {StreamKind::kContinuation, "continuation"},
     {StreamKind::kControl, "control"}}};

template <class Enum, std::size_t N>
std::string name_in(const EnumNames<Enum, N>& names, Enum value) {
  for (const auto& [v, name] : names) {
    if (v == value) return std::string(name);
  }
  return "";
}

}  // namespace memslot
