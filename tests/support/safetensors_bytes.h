#pragma once
// Writes safetensors files for tests.
#include <cstdint>
#include <cstring>
#include <string>

namespace memslot::testing_support {

// The length, the header as given, the data.
inline std::string safetensors_bytes(const std::string& header, const std::string& data) {
  const std::uint64_t size = header.size();
  std::string out(8, '\0');
  std::memcpy(out.data(), &size, 8);
  return out + header + data;
}

// Tensors one after another, as the format wants them.
class SafetensorsBytes {
 public:
  SafetensorsBytes& add(const std::string& name, const std::string& dtype, const std::string& shape,
                        const std::string& data) {
    header_ += (header_.empty() ? "" : ",") + ("\"" + name + "\":{\"dtype\":\"" + dtype) +
               "\",\"shape\":" + shape + ",\"data_offsets\":[" + std::to_string(data_.size()) +
               "," + std::to_string(data_.size() + data.size()) + "]}";
    data_ += data;
    return *this;
  }
  std::string build() const { return safetensors_bytes("{" + header_ + "}", data_); }

 private:
  std::string header_, data_;
};

}  // namespace memslot::testing_support
