#include "tests/support/fixture.h"

#include <fnmatch.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "shared/files/safetensors.h"

namespace memslot::testing_support {
namespace {

using Json = nlohmann::json;

template <class T>
T require(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  return std::move(result.value());
}

double as_number(const Json& json, const std::string& key) {
  if (json.is_boolean()) return json.get<bool>() ? 1 : 0;
  if (!json.is_number())
    throw std::runtime_error("metadata " + key + ": expected a number, found " + json.dump());
  return json.get<double>();
}

}  // namespace

std::string fixture_dir() {
  const char* named = std::getenv("MEMSLOT_FIXTURES");
  return named != nullptr && *named != '\0' ? named : MEMSLOT_SOURCE_DIR "/tests/golden/fixtures";
}

std::vector<std::string> fixtures_matching(const std::string& pattern) {
  std::vector<std::string> out;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(fixture_dir(), ignored)) {
    const auto name = entry.path().filename().string();
    if (::fnmatch(pattern.c_str(), name.c_str(), 0) == 0) out.push_back(entry.path().string());
  }
  std::sort(out.begin(), out.end());
  return out;
}

Fixture::Fixture(std::string path, std::unique_ptr<SafetensorsFile> file)
    : path_(std::move(path)), file_(std::move(file)) {}
Fixture::Fixture(Fixture&&) noexcept = default;
Fixture::~Fixture() = default;

Fixture Fixture::open(const std::string& path) {
  return Fixture(path, std::make_unique<SafetensorsFile>(require(SafetensorsFile::open(path))));
}

std::string Fixture::name() const { return std::filesystem::path(path_).stem().string(); }
bool Fixture::has(const std::string& tensor) const { return file_->find(tensor) != nullptr; }
HostTensor Fixture::tensor(const std::string& name) const { return require(file_->tensor(name)); }
std::vector<std::int64_t> Fixture::ids(const std::string& name) const {
  return require(file_->ids(name));
}

Shape Fixture::shape(const std::string& name) const {
  const auto* entry = file_->find(name);
  if (entry == nullptr)
    throw std::runtime_error(path_ + ": expected tensor " + name + ", found none");
  return entry->shape;
}

std::vector<std::string> Fixture::tensors() const {
  std::vector<std::string> out;
  for (const auto& [name, entry] : file_->index().tensors) out.push_back(name);
  return out;
}

const std::map<std::string, std::string>& Fixture::metadata() const {
  return file_->index().metadata;
}
bool Fixture::has_meta(const std::string& key) const { return metadata().contains(key); }

std::string Fixture::meta(const std::string& key) const {
  const auto it = metadata().find(key);
  if (it == metadata().end())
    throw std::runtime_error(path_ + ": expected metadata " + key + ", found none");
  return it->second;
}

double Fixture::number(const std::string& key) const {
  return as_number(Json::parse(meta(key), nullptr, /*allow_exceptions=*/false), key);
}

std::vector<double> Fixture::numbers(const std::string& key) const {
  const Json list = Json::parse(meta(key), nullptr, /*allow_exceptions=*/false);
  if (!list.is_array())
    throw std::runtime_error("metadata " + key + ": expected a list, found " + meta(key));
  std::vector<double> out;
  for (const auto& item : list) out.push_back(as_number(item, key));
  return out;
}

double expect_close(std::span<const float> got, std::span<const float> want, double tol_abs,
                    double tol_rel, const std::string& what) {
  EXPECT_EQ(got.size(), want.size()) << what;
  if (got.size() != want.size()) return std::numeric_limits<double>::infinity();
  std::size_t out = 0, worst = 0;
  double worst_excess = 0, largest = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double difference = std::abs(double{got[i]} - double{want[i]});
    const double allowed = tol_abs + tol_rel * std::abs(double{want[i]});
    largest = std::max(largest, difference);
    if (difference <= allowed) continue;
    const double excess =
        std::isnan(difference) ? std::numeric_limits<double>::infinity() : difference / allowed;
    if (out++ == 0 || excess > worst_excess) {
      worst = i;
      worst_excess = excess;
    }
  }
  EXPECT_EQ(out, 0U) << what << ": " << out << " of " << got.size() << " values out of tolerance "
                     << tol_abs << " + " << tol_rel << " |want|; worst at " << worst << ": got "
                     << (out ? got[worst] : 0) << ", want " << (out ? want[worst] : 0);
  return largest;
}

}  // namespace memslot::testing_support
