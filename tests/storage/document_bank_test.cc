// Documents: jobs, outer parameters, policies.
#include "storage/document_bank.h"

#include "storage/garbage.h"
#include "storage/memory_store.h"
#include "tests/storage/store_cases.h"
#include "tests/support/faulty_store.h"

namespace memslot {
namespace {

class DocumentBankTest : public EachStore {
 protected:
  Result<Document> put(const std::string& name, std::string expected, std::string_view json,
                       std::string token = "") {
    DocumentDraft draft;
    draft.expected = std::move(expected);
    draft.json = json;
    draft.token = std::move(token);
    return bank_.put("job", "default", name, draft, kNoDeadline);
  }
  std::unique_ptr<BankStore> store_ = open();
  DocumentBank bank_{*store_, clock_};
};

TEST_P(DocumentBankTest, ADocumentComesBackByteForByte) {
  const std::string text = "{ \"state\" :\t\"quéued\",  \"n\": 1e3 }";
  const auto made = put("j1", "", text);
  ASSERT_OK(made);
  const auto found = bank_.get("job", "default", "j1", kNoDeadline);
  ASSERT_OK(found);
  EXPECT_EQ(found.value().json, text);
  EXPECT_EQ(found.value().token, made.value().token);
  EXPECT_EQ(found.value().number, 1U);
  EXPECT_EQ(found.value().name, "j1");
  EXPECT_ERROR(bank_.get("job", "other", "j1", kNoDeadline), ErrorCode::kNotFound);
  EXPECT_ERROR(bank_.load_blob(found.value(), kNoDeadline), ErrorCode::kNotFound);
}

TEST_P(DocumentBankTest, ChangesAreACompareAndSetAndRetriesAreSafe) {
  const auto one = put("j1", "", "1", "a").value();
  EXPECT_ERROR(put("j1", "", "2", "b"), ErrorCode::kConflict);
  ASSERT_OK(put("j1", "a", "2", "b"));
  EXPECT_EQ(put("j1", "", "1", "a").value().number, 1U);  // a late retry of what did happen
  EXPECT_ERROR(put("j1", one.token, "3", "c"), ErrorCode::kConflict);
  EXPECT_EQ(bank_.get("job", "default", "j1", kNoDeadline).value().json, "2");
  EXPECT_EQ(bank_.history("job", "default", "j1", kNoDeadline).value().size(), 2U);
}

TEST_P(DocumentBankTest, ABlobIsKeptReplacedOrDropped) {
  const std::vector<std::byte> first(3000, std::byte{1}), second(10, std::byte{2});
  DocumentDraft draft;
  draft.json = "{}";
  draft.blob = first;
  auto document = bank_.put("outer", "default", "delta", draft, kNoDeadline).value();
  EXPECT_EQ(document.blob_bytes, 3000U);
  EXPECT_EQ(bank_.load_blob(document, kNoDeadline).value(), first);
  DocumentDraft keep{document.token, "{\"n\":1}", {}, true, "", 16};
  document = bank_.put("outer", "default", "delta", keep, kNoDeadline).value();
  EXPECT_EQ(bank_.load_blob(document, kNoDeadline).value(), first);
  draft.expected = document.token;
  draft.blob = second;
  document = bank_.put("outer", "default", "delta", draft, kNoDeadline).value();
  EXPECT_EQ(bank_.load_blob(document, kNoDeadline).value(), second);
  draft.keep_blob = true;
  EXPECT_ERROR(bank_.put("outer", "default", "delta", draft, kNoDeadline),
               ErrorCode::kInvalidArgument);
}

TEST_P(DocumentBankTest, ListingIsByTypeAndNamespace) {
  for (const char* name : {"b", "a", "c"}) ASSERT_OK(put(name, "", "{}"));
  DocumentDraft draft;
  draft.json = "{}";
  ASSERT_OK(bank_.put("job", "other", "z", draft, kNoDeadline));
  ASSERT_OK(bank_.put("jobs", "default", "z", draft, kNoDeadline));
  const auto page = bank_.list("job", "default", "", 2, kNoDeadline).value();
  ASSERT_EQ(page.documents.size(), 2U);
  EXPECT_EQ(page.documents[0].name, "a");
  const auto rest = bank_.list("job", "default", page.next, 2, kNoDeadline).value();
  ASSERT_EQ(rest.documents.size(), 1U);
  EXPECT_EQ(rest.documents[0].name, "c");
  EXPECT_TRUE(rest.next.empty());
  ASSERT_OK(bank_.erase("job", "default", "a", "", kNoDeadline));
  EXPECT_EQ(bank_.list("job", "default", "", 9, kNoDeadline).value().documents.size(), 2U);
}

TEST_P(DocumentBankTest, OldVersionsAreForgottenSoThatBusyDocumentsStaySmall) {
  std::string head;
  for (int i = 0; i < 100; ++i) head = put("j1", head, std::to_string(i)).value().token;
  const auto history = bank_.history("job", "default", "j1", kNoDeadline).value();
  EXPECT_GE(history.size(), 16U);
  EXPECT_LT(history.size(), 24U);
  EXPECT_EQ(history.back().json, "99");
  EXPECT_EQ(history.back().number, 100U);
}

TEST_P(DocumentBankTest, BadDocumentsAreRefused) {
  const auto bad = ErrorCode::kInvalidArgument;
  EXPECT_ERROR(put("j1", "", "{"), bad);
  EXPECT_ERROR(put("j1", "", ""), bad);
  EXPECT_ERROR(put("J1", "", "{}"), bad);
  EXPECT_ERROR(put("j1", "", "\"" + std::string(600'000, 'x') + "\""), bad);
  EXPECT_ERROR(put("j1", "", "{}", "bad token"), bad);
  DocumentDraft draft;
  draft.json = "{}";
  for (const char* type : {"memory", "branch", "tombstone", "stats", "a/b", ""}) {
    EXPECT_ERROR(bank_.put(type, "default", "x", draft, kNoDeadline), bad);
  }
  EXPECT_TRUE(store_->list("", "", 10, kNoDeadline).value().entries.empty());
}

MEMSLOT_EACH_STORE(DocumentBankTest);

TEST(DocumentBankFaults, ALostAcknowledgementIsResolved) {
  const SystemClock clock;
  MemoryStore real(clock);
  FaultyStore store(real);
  DocumentBank bank(store, clock);
  DocumentDraft draft;
  draft.json = "1";
  store.fail_after(FaultyStore::Call::kPublish, 1, ErrorCode::kIndeterminate);
  const auto put = bank.put("job", "default", "j", draft, kNoDeadline);
  ASSERT_OK(put);
  EXPECT_EQ(put.value().number, 1U);
}

}  // namespace
}  // namespace memslot
