#include "cli/fields.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace memslot::cli {
namespace {

using nlohmann::json;

TEST(Fields, StandInLinesWhatBelongsToOneNameBelowIt) {
  const json report = {{"type", "status"},
                       {"model", "tiny"},
                       {"layers", {4, 5}},
                       {"sessions", {{"running", 1}, {"ready", true}}},
                       {"peers", {{{"name", "a"}}, {{"name", "b"}, {"lost", nullptr}}}},
                       {"created_unix_ms", 1795454405000}};
  EXPECT_EQ(fields(report),
            "created  2026-11-23 17:20:05\n"
            "layers   4, 5\n"
            "model    tiny\n"
            "peers\n"
            "  name  a\n"
            "\n"
            "  lost  -\n"
            "  name  b\n"
            "sessions\n"
            "  ready    yes\n"
            "  running  1");
}

TEST(Fields, OfOneObjectAreThoseInIt) {
  EXPECT_EQ(fields({{"version", {{"id", "notes"}, {"bytes", 12}}}}), "bytes  12\nid     notes");
  EXPECT_EQ(fields({{"left", 3}}), "left  3");
}

TEST(Fields, NothingIsSaidToBeNothing) {
  EXPECT_EQ(fields(json::object()), "none");
  EXPECT_EQ(fields({{"bad", json::array()}, {"by", json::object()}, {"name", ""}}),
            "bad   none\nby    none\nname  \"\"");
}

// What a source is called comes from who learned it.
TEST(Fields, ATerminalObeysNoText) {
  EXPECT_EQ(fields({{"source", "a\x1b[2Jb"}}), "source  \"a\\u001b[2Jb\"");
  EXPECT_EQ(fields({{"source", "\xc3\xa9"}, {"x", 1}}), "source  \xc3\xa9\nx       1");
}

}  // namespace
}  // namespace memslot::cli
