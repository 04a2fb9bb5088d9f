#pragma once
// Golden numbers for tests: one safetensors file made by another implementation, with its
// hyperparameters and tolerance in the metadata. See tests/golden/MANIFEST.md.
//
// A missing tensor or metadata key fails the running test and ends the process' use of it by
// throwing (tests only), so a golden test cannot pass on absent data.
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "shared/tensor/tensor.h"

namespace memslot {
class SafetensorsFile;
}

namespace memslot::testing_support {

// MEMSLOT_FIXTURES, or tests/golden/fixtures of the source tree.
std::string fixture_dir();

// Files (or folders) of fixture_dir() whose name matches `pattern` (* and ?), sorted; full paths.
std::vector<std::string> fixtures_matching(const std::string& pattern);

class Fixture {
 public:
  static Fixture open(const std::string& path);  // throws std::runtime_error
  Fixture(Fixture&&) noexcept;
  ~Fixture();

  const std::string& path() const { return path_; }
  std::string name() const;  // file name without extension
  bool has(const std::string& tensor) const;
  HostTensor tensor(const std::string& name) const;              // f32, f16 or bf16 as f32
  std::vector<std::int64_t> ids(const std::string& name) const;  // i64 or i32
  Shape shape(const std::string& name) const;
  std::vector<std::string> tensors() const;  // names, sorted

  const std::map<std::string, std::string>& metadata() const;
  bool has_meta(const std::string& key) const;
  std::string meta(const std::string& key) const;             // the text as stored
  double number(const std::string& key) const;                // JSON number, or true/false as 1/0
  std::vector<double> numbers(const std::string& key) const;  // JSON list of numbers

  double tol_abs() const { return number("tol_abs"); }
  double tol_rel() const { return number("tol_rel"); }

 private:
  Fixture(std::string path, std::unique_ptr<SafetensorsFile> file);
  std::string path_;
  std::unique_ptr<SafetensorsFile> file_;
};

// EXPECTs |got - want| <= tol_abs + tol_rel * |want| everywhere (NaN fails); a failure prints how
// many are out, and the worst index, got and want. Returns the largest absolute difference.
double expect_close(std::span<const float> got, std::span<const float> want, double tol_abs,
                    double tol_rel, const std::string& what = "");

}  // namespace memslot::testing_support
