#pragma once
// Writes GGUF files for tests: small models of any element type, and files that are wrong on
// purpose.
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace memslot::testing_support {

template <class T>
void put_bytes(std::string& out, T value) {
  static_assert(std::is_trivially_copyable_v<T>);
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

inline std::string f32_bytes(const std::vector<float>& values) {
  std::string out;
  for (const float v : values) put_bytes(out, v);
  return out;
}

class GgufBytes {
 public:
  struct Tensor {
    std::string name;
    std::vector<std::uint64_t> dims;  // outermost first
    std::uint32_t type = 0;           // ggml's number
    std::string data;
  };

  std::uint32_t version = 3;
  std::string magic = "GGUF";
  std::vector<Tensor> tensors;
  std::vector<std::pair<std::string, std::string>> pairs;  // key -> type and value as bytes

  GgufBytes& u32(const std::string& key, std::uint32_t v) { return scalar(key, 4, v); }
  GgufBytes& f32(const std::string& key, float v) { return scalar(key, 6, v); }
  GgufBytes& flag(const std::string& key, bool v) {
    return scalar(key, 7, static_cast<std::uint8_t>(v));
  }
  GgufBytes& text(const std::string& key, std::string_view v) {
    std::string value;
    put_bytes<std::uint32_t>(value, 8);
    put_text(value, v);
    return raw(key, value);
  }
  GgufBytes& texts(const std::string& key, const std::vector<std::string>& list) {
    std::string value = array_head(8, list.size());
    for (const auto& v : list) put_text(value, v);
    return raw(key, value);
  }
  GgufBytes& i32s(const std::string& key, const std::vector<std::int32_t>& list) {
    std::string value = array_head(5, list.size());
    for (const auto v : list) put_bytes(value, v);
    return raw(key, value);
  }
  template <class T>
  GgufBytes& scalar(const std::string& key, std::uint32_t type, T v) {
    std::string value;
    put_bytes(value, type);
    put_bytes(value, v);
    return raw(key, value);
  }
  // Replaces a pair of the same key.
  GgufBytes& raw(const std::string& key, std::string value) {
    for (auto& [k, v] : pairs) {
      if (k == key) {
        v = std::move(value);
        return *this;
      }
    }
    pairs.emplace_back(key, std::move(value));
    return *this;
  }
  GgufBytes& without(const std::string& key) {
    std::erase_if(pairs, [&](const auto& pair) { return pair.first == key; });
    return *this;
  }
  GgufBytes& f32_tensor(const std::string& name, std::vector<std::uint64_t> dims,
                        const std::vector<float>& values) {
    tensors.push_back({name, std::move(dims), 0, f32_bytes(values)});
    return *this;
  }
  Tensor& find(const std::string& name) {
    for (auto& tensor : tensors) {
      if (tensor.name == name) return tensor;
    }
    return tensors.emplace_back();
  }

  std::string build() const {
    std::string out = magic;
    put_bytes(out, version);
    put_bytes<std::uint64_t>(out, tensors.size());
    put_bytes<std::uint64_t>(out, pairs.size());
    for (const auto& [key, value] : pairs) {
      put_text(out, key);
      out += value;
    }
    std::string data;
    for (const auto& tensor : tensors) {
      put_text(out, tensor.name);
      put_bytes(out, static_cast<std::uint32_t>(tensor.dims.size()));
      for (auto it = tensor.dims.rbegin(); it != tensor.dims.rend(); ++it) put_bytes(out, *it);
      put_bytes(out, tensor.type);
      put_bytes<std::uint64_t>(out, data.size());
      data += tensor.data;
      pad(data);
    }
    pad(out);
    return out + data;
  }

 private:
  static void pad(std::string& out) { out.resize((out.size() + 31) / 32 * 32, '\0'); }
  static void put_text(std::string& out, std::string_view v) {
    put_bytes<std::uint64_t>(out, v.size());
    out += v;
  }
  static std::string array_head(std::uint32_t type, std::size_t count) {
    std::string value;
    put_bytes<std::uint32_t>(value, 9);
    put_bytes(value, type);
    put_bytes<std::uint64_t>(value, count);
    return value;
  }
};

}  // namespace memslot::testing_support
