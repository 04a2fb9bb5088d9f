// Names, references, signatures, and the JSON of a version.
#include "shared/memory/record.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "tests/support/deep_json.h"

namespace memslot {
namespace {

using nlohmann::json;

TEST(Names, AreLowerCaseShortAndDoNotHide) {
  for (const char* good : {"a", "0", "skerrow_light", "a.b-c_9", "_x"})
    EXPECT_TRUE(check_name("id", good)) << good;
  EXPECT_TRUE(check_name("id", std::string(120, 'x')));
  for (const char* bad : {"", ".", "..", ".x", "-x", "A", "a b", "a/b", "ü", "a\n"}) {
    const auto checked = check_name("memory id", bad);
    ASSERT_FALSE(checked) << bad;
    EXPECT_EQ(checked.error().code, ErrorCode::kInvalidArgument);
    EXPECT_TRUE(checked.error().message.starts_with("memory id: expected"))
        << checked.error().message;
  }
  EXPECT_FALSE(check_name("id", std::string(121, 'x')));
}

TEST(Names, ASlugOfAnyTextIsAName) {
  EXPECT_EQ(slug("Skerrow Light (1897).txt"), "skerrow-light-1897-.txt");
  EXPECT_EQ(slug("../../etc/passwd"), "etc-passwd");
  EXPECT_EQ(slug("  "), "x");
  EXPECT_EQ(slug(""), "x");
  EXPECT_LE(slug(std::string(500, 'a')).size(), 100U);
  for (const char* text : {"Ünïcode", "---", "...", "a", "\x01\xff", "Trailing! "}) {
    EXPECT_TRUE(check_name("slug", slug(text))) << text << " -> " << slug(text);
  }
}

TEST(MemoryRefs, ParseEveryFormAndPrintIt) {
  EXPECT_EQ(MemoryRef::parse("m").value(), (MemoryRef{"default", "m", 0}));
  EXPECT_EQ(MemoryRef::parse("m@7", "guest").value(), (MemoryRef{"guest", "m", 7}));
  EXPECT_EQ(MemoryRef::parse("ns/m").value(), (MemoryRef{"ns", "m", 0}));
  EXPECT_EQ(MemoryRef::parse("ns/m@18446744073709551615").value().version, 18446744073709551615U);
  EXPECT_EQ(MemoryRef::parse("ns/m@7").value().text(), "ns/m@7");
  EXPECT_EQ((MemoryRef{"ns", "m", 0}).text(), "ns/m");
  for (const char* bad : {"", "/", "ns/", "/m", "m@", "m@0", "m@-1", "m@x", "m@1x", "a/b/c",
                          "m@18446744073709551616", "M"}) {
    EXPECT_FALSE(MemoryRef::parse(bad)) << bad;
  }
}

TEST(Kinds, HaveNamesThatParseBack) {
  int known = 0;
  for (int i = 0; i < 256; ++i) {
    const auto kind = static_cast<MemoryKind>(i);
    if (memory_kind_name(kind) == "unknown") continue;
    ++known;
    EXPECT_EQ(parse_memory_kind(memory_kind_name(kind)).value(), kind);
  }
  EXPECT_EQ(known, 10);
  EXPECT_FALSE(parse_memory_kind("unknown"));
  EXPECT_FALSE(parse_memory_kind("MLP"));
  EXPECT_TRUE(is_stateful(MemoryKind::kDelta));
  EXPECT_FALSE(is_stateful(MemoryKind::kLora));
}

TEST(Signatures, TheFirstDifferenceIsNamed) {
  SlotSignature slot;
  slot.model = sha256(bytes_of("m"));
  slot.layer = 22;
  slot.d_model = 576;
  slot.d_ff = 1536;
  EXPECT_TRUE(check_signature(slot, slot));
  const auto expect_named = [&](auto change, std::string_view word) {
    SlotSignature memory = slot;
    change(memory);
    const auto checked = check_signature(slot, memory);
    ASSERT_FALSE(checked) << word;
    EXPECT_EQ(checked.error().code, ErrorCode::kMismatch);
    EXPECT_NE(checked.error().message.find(word), std::string::npos) << checked.error().message;
  };
  expect_named([](auto& s) { s.model = sha256(bytes_of("n")); }, "model digest");
  expect_named([](auto& s) { s.layer = 21; }, "layer: expected 22, found 21");
  expect_named([](auto& s) { s.kind = MemoryKind::kLora; }, "kind: expected mlp, found lora");
  expect_named([](auto& s) { s.form = MlpForm::kGeluTanh; }, "form");
  expect_named([](auto& s) { s.d_model = 1; }, "d_model");
  expect_named([](auto& s) { s.d_ff = 1; }, "d_ff");
  expect_named([](auto& s) { s.outer = sha256(bytes_of("o")); }, "outer");
  EXPECT_EQ(slot.text(),
            "mlp@22 swiglu 576x1536 model " + slot.model.hex().substr(0, 12) + " outer -");
}

MemoryVersion sample() {
  MemoryVersion v;
  v.ref = {"guest", "skerrow", 3};
  v.token = "t3";
  v.parent = "t2";
  v.signature.model = sha256(bytes_of("m"));
  v.signature.kind = MemoryKind::kDelta;
  v.signature.layer = 22;
  v.signature.d_model = 576;
  v.signature.d_ff = 1536;
  v.dtype = DType::kF32;
  v.source = "skerrow_light";
  v.origin = VersionOrigin::kWriteBack;
  v.origin_id = "sitzung \"ü\" \n 7";
  v.created_unix_ms = -5;
  v.payload_bytes = 18446744073709551615U;
  v.sha256 = sha256(bytes_of("p"));
  v.keys = 31;
  v.stats = {2.75, 0.1, 0.45, 0.97, -0.013, 1e-300, 12.5, 48, 512, 31, R"({"rate":0.01})"};
  v.branch = true;
  v.position = 99;
  return v;
}

TEST(VersionJson, ComesBackEqualAndIsCanonical) {
  const auto text = to_json(sample());
  const auto back = memory_version_from_json(text);
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back.value(), sample());
  EXPECT_EQ(to_json(back.value()), text);
  EXPECT_LT(text.size(), 1500U);
}

TEST(VersionJson, UnknownFieldsAreIgnored) {
  auto object = json::parse(to_json(sample()));
  object["later"] = {1, 2};
  object["stats"]["later"] = true;
  EXPECT_EQ(memory_version_from_json(object.dump()).value(), sample());
}

TEST(VersionJson, EveryMissingOrWronglyTypedFieldIsNamed) {
  const auto good = json::parse(to_json(sample()));
  const auto expect_named = [](const json& object, const std::string& field) {
    const auto parsed = memory_version_from_json(object.dump());
    ASSERT_FALSE(parsed) << field;
    EXPECT_EQ(parsed.error().code, ErrorCode::kCorruption) << field;
    EXPECT_NE(parsed.error().message.find(field), std::string::npos) << parsed.error().message;
  };
  for (const std::string part : {"", "signature", "stats"}) {
    const auto& fields = part.empty() ? good : good[part];
    for (const auto& [field, value] : fields.items()) {
      auto missing = good, wrong = good;
      (part.empty() ? missing : missing[part]).erase(field);
      expect_named(missing, field);
      (part.empty() ? wrong : wrong[part])[field] = json::array();
      expect_named(wrong, field);
    }
  }
}

TEST(VersionJson, BadValuesAreRefused) {
  const auto good = json::parse(to_json(sample()));
  const auto expect_refused = [&](const char* pointer, const json& value) {
    auto object = good;
    object[json::json_pointer(pointer)] = value;
    const auto parsed = memory_version_from_json(object.dump());
    ASSERT_FALSE(parsed) << pointer;
    EXPECT_EQ(parsed.error().code, ErrorCode::kCorruption);
  };
  expect_refused("/signature/kind", "quantum");
  expect_refused("/signature/form", "relu");
  expect_refused("/signature/model", "abc");
  expect_refused("/signature/layer", 4294967296);
  expect_refused("/sha256", std::string(64, 'g'));
  expect_refused("/dtype", "f8");
  expect_refused("/origin", "found");
  expect_refused("/version", -1);
  expect_refused("/version", 1.5);
  expect_refused("/keys", 4294967296);
  expect_refused("/stats/nll_after", nullptr);
  expect_refused("/stats/recall", "high");
  for (const char* text : {"", "{", "[]", "null", "{}", "\xff"})
    EXPECT_FALSE(memory_version_from_json(text)) << text;
  EXPECT_FALSE(memory_version_from_json(std::string(2 << 20, ' ')));
  EXPECT_FALSE(memory_version_from_json(std::string(100'000, '[')));
  const std::string text = good.dump();
  const std::string all_but_end = text.substr(0, text.size() - 1);
  ASSERT_TRUE(memory_version_from_json(deep_json(all_but_end + R"(,"unknown":)", "}", 60)));
  const auto deep = memory_version_from_json(deep_json(all_but_end + R"(,"unknown":)", "}", 64));
  ASSERT_FALSE(deep);
  EXPECT_EQ(deep.error().code, ErrorCode::kCorruption);
}

TEST(VersionJson, ANonFiniteStatisticDoesNotSurviveSilently) {
  auto version = sample();
  version.stats.nll_after = std::numeric_limits<double>::quiet_NaN();
  EXPECT_FALSE(memory_version_from_json(to_json(version)));
  version = sample();
  version.stats.recall = std::numeric_limits<double>::quiet_NaN();
  EXPECT_NE(memory_version_from_json(to_json(version)).value(), version);  // as the bank checks
}

TEST(VersionJson, AStatisticThatWasNotMeasuredIsNullAndNotZero) {
  auto version = sample();
  version.stats.recall_before = version.stats.recall = version.stats.locality = std::nullopt;
  version.stats.steps = version.stats.segments = std::nullopt;
  const auto stats = json::parse(to_json(version))["stats"];
  for (const char* name : {"recall_before", "recall", "locality", "steps", "segments"})
    EXPECT_TRUE(stats[name].is_null()) << name;
  EXPECT_EQ(memory_version_from_json(to_json(version)).value(), version);
  version.stats.steps = 0;
  EXPECT_EQ(memory_version_from_json(to_json(version)).value().stats.steps, 0U);
}

}  // namespace
}  // namespace memslot
