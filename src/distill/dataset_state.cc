// DatasetState as JSON.
#include <charconv>
#include <nlohmann/json.hpp>

#include "distill/dataset.h"
#include "text/json_reader.h"

namespace swiftkv {
namespace {

constexpr int64_t kMaxCount = int64_t{1} << 60;

Result<uint64_t> ParseFingerprint(const JsonObject& object) {
  SWIFTKV_ASSIGN_OR_RETURN(const std::string text, object.String("fingerprint"));
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc() || end != text.data() + text.size()) {
    return InvalidInput("{}: must be up to 16 hexadecimal digits", object.Place("fingerprint"));
  }
  return value;
}

Result<DatasetState::Source> ParseSource(const nlohmann::json& json, const std::string& place) {
  SWIFTKV_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::From(json, place));
  DatasetState::Source source;
  SWIFTKV_ASSIGN_OR_RETURN(source.fingerprint, ParseFingerprint(object));
  SWIFTKV_ASSIGN_OR_RETURN(source.pass, object.Int("pass", 0, kMaxCount));
  SWIFTKV_ASSIGN_OR_RETURN(source.position, object.Int("position", 0, kMaxCount));
  SWIFTKV_ASSIGN_OR_RETURN(source.tokens, object.Int("tokens", 0, kMaxCount));
  return source;
}

Result<DatasetState::Open> ParseOpen(const JsonObject& object) {
  DatasetState::Open open;
  SWIFTKV_ASSIGN_OR_RETURN(open.source, object.Int("source", 0, kMaxCount));
  SWIFTKV_ASSIGN_OR_RETURN(open.row, object.Int("row", 0, kMaxCount));
  SWIFTKV_ASSIGN_OR_RETURN(open.offset, object.Int("offset", 0, kMaxCount));
  return open;
}

}  // namespace

nlohmann::ordered_json ToJson(const DatasetState& state) {
  nlohmann::ordered_json json = {{"seed", state.seed},
                                 {"unix_time", state.unix_time},
                                 {"sequences", state.sequences},
                                 {"skipped_rows", state.skipped_rows},
                                 {"sources", nlohmann::ordered_json::array()}};
  for (const DatasetState::Source& source : state.sources) {
    json["sources"].push_back({{"fingerprint", fmt::format("{:016x}", source.fingerprint)},
                               {"pass", source.pass},
                               {"position", source.position},
                               {"tokens", source.tokens}});
  }
  if (state.open) {
    json["open"] = {{"source", state.open->source}, {"row", state.open->row}, {"offset", state.open->offset}};
  }
  return json;
}

Result<DatasetState> ParseDatasetState(const nlohmann::ordered_json& json, const std::string& origin) {
  const nlohmann::json plain(json);
  SWIFTKV_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::From(plain, origin));
  DatasetState state;
  SWIFTKV_ASSIGN_OR_RETURN(state.seed, object.Int("seed", 0, INT64_MAX));
  SWIFTKV_ASSIGN_OR_RETURN(state.unix_time, object.Int("unix_time", 0, kMaxCount));
  SWIFTKV_ASSIGN_OR_RETURN(state.sequences, object.Int("sequences", 0, kMaxCount));
  SWIFTKV_ASSIGN_OR_RETURN(state.skipped_rows, object.Int("skipped_rows", 0, kMaxCount));
  SWIFTKV_ASSIGN_OR_RETURN(const nlohmann::json* sources, object.Array("sources"));
  for (size_t i = 0; i < sources->size(); ++i) {
    SWIFTKV_ASSIGN_OR_RETURN(DatasetState::Source source,
                             ParseSource((*sources)[i], fmt::format("{}[{}]", object.Place("sources"), i)));
    state.sources.push_back(source);
  }
  if (object.Find("open") != nullptr) {
    SWIFTKV_ASSIGN_OR_RETURN(const JsonObject open, object.Object("open"));
    SWIFTKV_ASSIGN_OR_RETURN(state.open, ParseOpen(open));
  }
  return state;
}

}  // namespace swiftkv
