#include "generator/model/model_file.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>

#include "generator/model/gguf.h"
#include "generator/model/gguf_config.h"
#include "generator/model/json_config.h"
#include "shared/files/safetensors.h"
#include "generator/model/tensor_names.h"
#include "generator/model/tokenizer_files.h"

namespace memslot {

// Exactly one of `gguf` and `shards` is filled.
struct ModelFile::Impl {
  std::string path;
  ModelConfig config;
  TokenizerSpec tokenizer;
  std::optional<GgufFile> gguf;
  std::vector<SafetensorsFile> shards;  // in name order
  std::string prefix;                   // in front of every GPT-2 name: "" or "transformer."

  std::optional<TensorSource> source(TensorRole role, int layer) const;
  const Shape* stored_shape(const std::string& name) const;
  Result<HostTensor> stored(const std::string& name) const;
  Status check_tensor(const TensorSource& source) const;
  Status check_all() const;
};

namespace {

Status check_tokenizer_fits(const ModelConfig& config, const TokenizerSpec& spec) {
  if (spec.tokens.size() <= static_cast<std::size_t>(config.vocab)) return ok();
  return corrupt("tokenizer tokens", "at most the vocabulary " + std::to_string(config.vocab),
                 spec.tokens.size());
}

Result<std::vector<std::string>> safetensors_in(const std::string& folder) {
  std::vector<std::string> paths;
  std::error_code failed;
  for (std::filesystem::directory_iterator it(folder, failed), end; !failed && it != end;
       it.increment(failed)) {
    if (it->path().extension() == ".safetensors") paths.push_back(it->path().string());
  }
  if (failed)
    return Error{ErrorCode::kIo,
                 folder + ": expected a readable folder, found " + failed.message()};
  if (paths.empty())
    return Error{ErrorCode::kNotFound, folder + ": expected *.safetensors, found none"};
  std::sort(paths.begin(), paths.end());
  return paths;
}

Status check_no_tensor_twice(const std::vector<SafetensorsFile>& shards) {
  for (std::size_t i = 1; i < shards.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      for (const auto& [name, entry] : shards[i].index().tensors) {
        if (shards[j].find(name) != nullptr)
          return corrupt("tensor '" + name + "'", "in one shard", "in two");
      }
    }
  }
  return ok();
}

}  // namespace

std::optional<TensorSource> ModelFile::Impl::source(TensorRole role, int layer) const {
  auto source =
      tensor_source(gguf ? FileFormat::kGguf : FileFormat::kSafetensors, config, role, layer);
  if (source && role != TensorRole::kOutput) source->name = prefix + source->name;
  return source;
}

const Shape* ModelFile::Impl::stored_shape(const std::string& name) const {
  if (gguf) {
    const auto* entry = gguf->find(name);
    return entry == nullptr ? nullptr : &entry->shape;
  }
  for (const auto& shard : shards) {
    if (const auto* entry = shard.find(name)) return &entry->shape;
  }
  return nullptr;
}

Result<HostTensor> ModelFile::Impl::stored(const std::string& name) const {
  if (gguf) return gguf->tensor(name);
  for (const auto& shard : shards) {
    if (shard.find(name) != nullptr) return shard.tensor(name);
  }
  return Error{ErrorCode::kNotFound, path + ": expected tensor '" + name + "', found none"};
}

Status ModelFile::Impl::check_tensor(const TensorSource& source) const {
  const Shape* found = stored_shape(source.name);
  if (found == nullptr) {
    if (!source.required) return ok();
    return corrupt("tensor '" + source.name + "'", "shape " + source.stored.text(), "none");
  }
  if (*found != source.stored)
    return corrupt("shape of tensor '" + source.name + "'", source.stored.text(), found->text());
  for (const auto& shard : shards) {
    const auto* entry = shard.find(source.name);
    if (entry != nullptr && entry->dtype != "F32" && entry->dtype != "F16" &&
        entry->dtype != "BF16") {
      return Error{ErrorCode::kNotSupported, "dtype of tensor '" + source.name +
                                                 "': expected F32, F16 or BF16, found " +
                                                 entry->dtype};
    }
  }
  return ok();
}

Status ModelFile::Impl::check_all() const {
  for (int r = 0; r < kTensorRoles; ++r) {
    const auto role = static_cast<TensorRole>(r);
    const int layers = is_layer_role(role) ? config.layers : 1;
    for (int layer = 0; layer < layers; ++layer) {
      if (const auto wanted = source(role, layer)) {
        MEMSLOT_TRY(check_tensor(*wanted));
      }
    }
  }
  return check_tokenizer_fits(config, tokenizer);
}

namespace {

Status open_gguf(const std::string& path, ModelConfig& config, TokenizerSpec& tokenizer,
                 std::optional<GgufFile>& gguf) {
  MEMSLOT_TRY(gguf, GgufFile::open(path));
  auto sizes = config_from_gguf(gguf->index());
  if (!sizes) return sizes.error().with_context(path);
  config = std::move(sizes.value());
  auto spec = tokenizer_from_gguf(gguf->index());
  if (!spec) return spec.error().with_context(path);
  tokenizer = std::move(spec.value());
  return ok();
}

Status open_folder(const std::string& path, ModelConfig& config, TokenizerSpec& tokenizer,
                   std::vector<SafetensorsFile>& shards) {
  MEMSLOT_TRY(const auto text, read_text_file(path + "/config.json"));
  auto sizes = config_from_json(text);
  if (!sizes) return sizes.error().with_context(path);
  config = std::move(sizes.value());
  if (config.name.empty()) config.name = std::filesystem::path(path).filename().string();
  MEMSLOT_TRY(tokenizer, tokenizer_from_folder(path, config));
  MEMSLOT_TRY(const auto files, safetensors_in(path));
  for (const auto& file : files) {
    MEMSLOT_TRY(auto shard, SafetensorsFile::open(file));
    shards.push_back(std::move(shard));
  }
  auto once = check_no_tensor_twice(shards);
  if (!once) return once.error().with_context(path);
  return ok();
}

}  // namespace

Result<ModelFile> ModelFile::open(const std::string& path) {
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    MEMSLOT_TRY(open_folder(path, impl->config, impl->tokenizer, impl->shards));
    if (impl->config.family == ModelConfig::Family::kGpt2 &&
        impl->stored_shape("transformer.wte.weight") != nullptr) {
      impl->prefix = "transformer.";
    }
  } else {
    MEMSLOT_TRY(open_gguf(path, impl->config, impl->tokenizer, impl->gguf));
  }
  auto checked = impl->check_all();
  if (!checked) return checked.error().with_context(path);
  return ModelFile(std::move(impl));
}

ModelFile::ModelFile(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ModelFile::ModelFile(ModelFile&&) noexcept = default;
ModelFile& ModelFile::operator=(ModelFile&&) noexcept = default;
ModelFile::~ModelFile() = default;

const std::string& ModelFile::path() const { return impl_->path; }
const ModelConfig& ModelFile::config() const { return impl_->config; }
const TokenizerSpec& ModelFile::tokenizer() const { return impl_->tokenizer; }

Result<Sha256> ModelFile::digest() const {
  Sha256Stream stream;
  constexpr std::size_t kPiece = 1 << 22;  // hashed and given back piece by piece
  const auto add = [&](const MappedFile& file) {
    for (std::size_t at = 0; at < file.bytes().size(); at += kPiece) {
      const auto piece = file.bytes().subspan(at, std::min(kPiece, file.bytes().size() - at));
      stream.update(piece);
      file.drop_pages(piece);
    }
  };
  if (impl_->gguf) add(impl_->gguf->file());
  for (const auto& shard : impl_->shards) add(shard.file());
  return stream.finish();
}

bool ModelFile::has(TensorRole role, int layer) const {
  if (is_layer_role(role) && (layer < 0 || layer >= impl_->config.layers)) return false;
  const auto source = impl_->source(role, layer);
  return source && impl_->stored_shape(source->name) != nullptr;
}

Result<HostTensor> ModelFile::tensor(TensorRole role, int layer) const {
  if (!has(role, layer)) {
    return Error{ErrorCode::kNotFound, impl_->path + ": expected tensor " +
                                           std::string(tensor_role_name(role)) + " of layer " +
                                           std::to_string(layer) + ", found none"};
  }
  const auto source = impl_->source(role, layer);
  MEMSLOT_TRY(auto stored, impl_->stored(source->name));
  return delivered(*source, std::move(stored));
}

}  // namespace memslot
