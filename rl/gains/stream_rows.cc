#include "rl/gains/stream_rows.h"

#include <nlohmann/json.hpp>

#include "rl/features.h"  // all_finite
#include "shared/base/base64.h"
#include "shared/base/json_dump.h"
#include "shared/files/safetensors.h"
#include "shared/files/write_file.h"
#include "shared/files/write_safetensors.h"

namespace memslot::gains_program {
namespace {

using nlohmann::json;

HostTensor tensor(std::size_t rows, std::size_t cols, const std::vector<float>& values) {
  HostTensor out;
  out.shape = Shape{static_cast<std::int64_t>(rows), static_cast<std::int64_t>(cols)};
  out.values = values;
  return out;
}

Error damaged(const std::string& path) {
  return {ErrorCode::kNotFound, path + ": expected a stream's rows, found others"};
}

}  // namespace

Status StreamRows::save(const std::string& path, const std::string& digest) const {
  return write_file(path, safetensors_bytes({{"hidden", tensor(steps, dim, hidden)},
                                             {"surprise", tensor(candidates, steps, surprise)},
                                             {"entropy", tensor(candidates, steps, entropy)},
                                             {"activation", tensor(candidates, steps, activation)}},
                                            {{"digest", digest}}));
}

Result<StreamRows> StreamRows::load(const std::string& path, const std::string& digest) {
  const auto file = SafetensorsFile::open(path);
  if (!file) return damaged(path);
  const auto& metadata = file.value().index().metadata;
  const auto found = metadata.find("digest");
  if (found == metadata.end() || found->second != digest) return damaged(path);
  StreamRows out;
  std::pair<const char*, std::vector<float>*> parts[] = {{"hidden", &out.hidden},
                                                         {"surprise", &out.surprise},
                                                         {"entropy", &out.entropy},
                                                         {"activation", &out.activation}};
  for (const auto& [name, values] : parts) {
    auto read = file.value().tensor(name);
    if (!read || read.value().shape.rank() != 2 || !all_finite(read.value().values)) {
      return damaged(path);
    }
    const Shape shape = read.value().shape;
    *values = std::move(read.value().values);
    if (values == &out.hidden) {
      out.steps = static_cast<std::size_t>(shape[0]);
      out.dim = static_cast<std::size_t>(shape[1]);
    } else {
      out.candidates = static_cast<std::size_t>(shape[0]);
    }
  }
  const std::size_t all = out.candidates * out.steps;
  const bool fits =
      out.surprise.size() == all && out.entropy.size() == all && out.activation.size() == all;
  if (!fits) return damaged(path);
  return out;
}

Status RowCollector::take_hidden(const json& event) {
  const std::size_t count = event.at("rows");
  if (event.at("first") != hidden_rows_ || count == 0) {
    return corrupt("event hidden", "rows from " + std::to_string(hidden_rows_),
                   dump_start(event, 60));
  }
  MEMSLOT_TRY(const auto bytes, from_base64(event.at("values").get_ref<const std::string&>()));
  rows_.dim = bytes.size() / sizeof(float) / count;
  MEMSLOT_TRY(
      const auto values,
      floats_from_base64(event.at("values").get_ref<const std::string&>(), count * rows_.dim));
  rows_.hidden.insert(rows_.hidden.end(), values.begin(), values.end());
  hidden_rows_ += count;
  return ok();
}

Status RowCollector::take_rows(const json& event) {
  const std::size_t count = event.at("memories").size();
  if (event.at("first") != done_ || done_ + count > rows_.candidates) {
    return corrupt("event rows", "candidates from " + std::to_string(done_),
                   event.at("first").get<std::size_t>());
  }
  const std::pair<const char*, std::vector<float>*> parts[] = {{"surprise", &rows_.surprise},
                                                               {"entropy", &rows_.entropy},
                                                               {"activation", &rows_.activation}};
  for (const auto& [name, to] : parts) {
    MEMSLOT_TRY(const auto values, floats_from_base64(event.at(name).get_ref<const std::string&>(),
                                                      count * rows_.steps));
    if (!all_finite(values)) return corrupt("event rows", "finite numbers", "NaN or infinity");
    to->insert(to->end(), values.begin(), values.end());
  }
  done_ += count;
  return ok();
}

void RowCollector::restart() {
  StreamRows empty;
  empty.steps = rows_.steps;
  empty.candidates = rows_.candidates;
  rows_ = std::move(empty);
  done_ = hidden_rows_ = 0;
  wrong_ = ok();
}

void RowCollector::take(const json& event) {
  try {
    const std::string type = event.at("type");
    // A controller that was restarted is asked again, and the task begins anew.
    if (type == "hidden" && event.at("first") == 0) restart();
    if (!wrong_) return;
    if (type == "hidden") wrong_ = take_hidden(event);
    if (type == "rows") wrong_ = take_rows(event);
  } catch (const json::exception& e) {
    wrong_ = corrupt("event of a gains task", "its fields", e.what());
  }
}

Result<StreamRows> RowCollector::finish(const json& last) {
  MEMSLOT_TRY(wrong_);
  if (last.value("type", "") != "gains" || done_ != rows_.candidates ||
      hidden_rows_ != rows_.steps) {
    return corrupt("events of a gains task",
                   std::to_string(rows_.candidates) + " candidates on " +
                       std::to_string(rows_.steps) + " steps",
                   std::to_string(done_) + " on " + std::to_string(hidden_rows_));
  }
  return std::move(rows_);
}

}  // namespace memslot::gains_program
