#include "controller/step/whitening_shelf.h"

#include <nlohmann/json.hpp>

#include "shared/base/json_depth.h"
#include "shared/base/log.h"
#include "shared/files/safetensors.h"
#include "shared/files/write_safetensors.h"

namespace memslot {
namespace {

using nlohmann::json;

constexpr const char* kType = "whitening";
constexpr const char* kNamespace = "index";

std::string name_of(const SpaceKey& s) {
  return s.model.hex() + "-" + std::to_string(s.layer) + "-" +
         std::to_string(static_cast<int>(s.form)) + "-" + std::to_string(s.d_model) + "-" +
         std::to_string(s.d_ff);
}

// Of what a document says; 0 where it says nothing of the kind.
std::uint64_t number_in(const json& from, const char* key) {
  const auto found = from.find(key);
  return found != from.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}

}  // namespace

Result<std::optional<Whitening>> WhiteningShelf::read(const SpaceKey& space, TimePoint deadline) {
  const auto document = documents_.get(kType, kNamespace, name_of(space), deadline);
  if (!document) {
    if (document.error().code == ErrorCode::kNotFound) return std::optional<Whitening>();
    return document.error();
  }
  const std::string& text = document.value().json;
  const json about =
      json_depth_fits(text) ? json::parse(text, nullptr, false) : json(json::value_t::discarded);
  if (!about.is_object()) return corrupt("whitening's document", "a JSON object", "another");
  MEMSLOT_TRY(const auto blob, documents_.load_blob(document.value(), deadline));
  MEMSLOT_TRY(const SafetensorsIndex index, SafetensorsIndex::parse(blob));
  std::map<std::string, HostTensor> tensors;
  for (const auto& [name, entry] : index.tensors) {
    MEMSLOT_TRY(tensors[name], read_f32(blob, entry));
  }
  MEMSLOT_TRY(Whitening out, Whitening::restore(tensors, "", number_in(about, "fitted_rows"),
                                                number_in(about, "version")));
  if (out.dim() != static_cast<std::uint32_t>(space.d_model) || out.fitted_rows() == 0) {
    return corrupt("whitening", std::to_string(space.d_model) + " dimensions fitted on rows",
                   std::to_string(out.dim()) + " on " + std::to_string(out.fitted_rows()));
  }
  return std::optional(std::move(out));
}

std::optional<Whitening> WhiteningShelf::load(const SpaceKey& space, TimePoint deadline) {
  auto found = read(space, deadline);
  if (found) return std::move(found).value();
  log::warn("the index's whitening is fitted anew: {}", found.error().message);
  return std::nullopt;
}

void WhiteningShelf::save(const SpaceKey& space, const Whitening& whitening,
                          const std::string& digest, TimePoint deadline) {
  std::string& saved = saved_[space];
  if (saved == digest) return;
  const std::string name = name_of(space);
  const auto current = documents_.get(kType, kNamespace, name, deadline);
  const std::string about = json{
      {"digest", digest},
      {"fitted_rows", whitening.fitted_rows()},
      {"version",
       whitening.version()}}.dump();
  if (current && current.value().json == about) {
    saved = digest;
    return;
  }
  std::map<std::string, HostTensor> tensors;
  whitening.store("", tensors);
  const std::string bytes = safetensors_bytes(tensors, {});
  DocumentDraft draft;
  draft.expected = current ? current.value().token : "";
  draft.json = about;
  draft.blob = std::as_bytes(std::span(bytes));
  draft.keep = 1;
  const auto put = documents_.put(kType, kNamespace, name, draft, deadline);
  if (put) {
    saved = digest;
  } else {
    log::warn("the index's whitening is not kept: {}", put.error().message);
  }
}

}  // namespace memslot
