// The tokenizer as a filter, for tools/compare_tokenizers.py.
//
//   tokenizer_ids PATH [--no-special]     PATH: a folder, a tokenizer.json, or a GGUF vocabulary exported as JSON
//   tokenizer_ids PATH --export FOLDER    writes such a vocabulary as tokenizer.json and tokenizer_config.json
//
// stdin: texts, each as its number of bytes (uint32, little endian) and the bytes.
// stdout: for each text the number of ids (uint32) and the ids (int32), then the number of bytes (uint32) and the bytes
// of the text that the ids decode to, special tokens included. stderr: the processor time of encoding and decoding.
// With --no-special the text is encoded without BOS and EOS and decoded without special tokens.
#include <fmt/format.h>

#include <cstdio>
#include <cstring>
#include <ctime>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/file.h"
#include "text/tokenizer.h"
#include "text/tokenizer_export.h"

namespace swiftkv {
namespace {

using nlohmann::json;

template <class T>
std::optional<T> Optional(const json& object, const char* name) {
  return object.contains(name) ? std::optional<T>(object[name].get<T>()) : std::nullopt;
}

// The keys of tokenizer.ggml, as tools/compare_tokenizers.py writes them.
GgufVocabulary ReadVocabulary(const json& file) {
  GgufVocabulary vocabulary;
  vocabulary.model = file.at("model");
  vocabulary.pre = file.value("pre", "");
  vocabulary.tokens = file.at("tokens").get<std::vector<std::string>>();
  vocabulary.scores = file.value("scores", std::vector<float>());
  vocabulary.types = file.value("token_type", std::vector<int32_t>());
  vocabulary.merges = file.value("merges", std::vector<std::string>());
  vocabulary.bos_token_id = Optional<int32_t>(file, "bos_token_id");
  vocabulary.eos_token_id = Optional<int32_t>(file, "eos_token_id");
  vocabulary.unknown_token_id = Optional<int32_t>(file, "unknown_token_id");
  vocabulary.padding_token_id = Optional<int32_t>(file, "padding_token_id");
  vocabulary.add_bos_token = Optional<bool>(file, "add_bos_token");
  vocabulary.add_eos_token = Optional<bool>(file, "add_eos_token");
  vocabulary.add_space_prefix = Optional<bool>(file, "add_space_prefix");
  return vocabulary;
}

Result<std::unique_ptr<Tokenizer>> Load(const std::string& path) {
  if (!path.ends_with(".json")) return Tokenizer::FromFolder(path);
  SWIFTKV_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, 256 << 20));
  if (!path.ends_with(".gguf.json")) return Tokenizer::FromJson(text, path);
  return Tokenizer::FromGguf(ReadVocabulary(json::parse(text)), path);
}

Status Export(const std::string& path, const std::string& folder) {
  SWIFTKV_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, 256 << 20));
  SWIFTKV_ASSIGN_OR_RETURN(const TokenizerFiles files, ExportTokenizer(ReadVocabulary(json::parse(text)), {}, path));
  SWIFTKV_RETURN_IF_ERROR(WriteFile(folder + "/tokenizer.json", files.tokenizer_json));
  return WriteFile(folder + "/tokenizer_config.json", files.tokenizer_config_json);
}

void AppendSize(size_t size, std::string& out) {
  const auto value = static_cast<uint32_t>(size);
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

double Seconds(std::clock_t ticks) { return static_cast<double>(ticks) / CLOCKS_PER_SEC; }

int Run(const std::string& path, bool special) {
  const Result<std::unique_ptr<Tokenizer>> tokenizer = Load(path);
  if (!tokenizer) {
    fmt::print(stderr, "{}\n", tokenizer.error().message);
    return 2;
  }
  const std::string input(std::istreambuf_iterator<char>(std::cin), {});
  std::string out;
  std::clock_t encode_time = 0;
  std::clock_t decode_time = 0;
  for (size_t at = 0; at + 4 <= input.size();) {
    uint32_t size;
    std::memcpy(&size, input.data() + at, 4);
    const std::string_view text = std::string_view(input).substr(at + 4, size);
    at += 4 + text.size();
    const std::clock_t start = std::clock();
    const std::vector<int32_t> ids = (*tokenizer)->Encode(text, {.add_special_tokens = special});
    const std::clock_t middle = std::clock();
    const std::string decoded = (*tokenizer)->Decode(ids, {.skip_special_tokens = !special});
    encode_time += middle - start;
    decode_time += std::clock() - middle;
    AppendSize(ids.size(), out);
    out.append(reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(int32_t));
    AppendSize(decoded.size(), out);
    out.append(decoded);
  }
  std::fwrite(out.data(), 1, out.size(), stdout);
  fmt::print(stderr, "encode_s={:.4f} decode_s={:.4f}\n", Seconds(encode_time), Seconds(decode_time));
  return 0;
}

}  // namespace
}  // namespace swiftkv

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: tokenizer_ids PATH [--no-special | --export FOLDER]\n");
    return 2;
  }
  if (argc == 4 && std::strcmp(argv[2], "--export") == 0) {
    const swiftkv::Status exported = swiftkv::Export(argv[1], argv[3]);
    if (!exported) fmt::print(stderr, "{}\n", exported.error().message);
    return exported ? 0 : 2;
  }
  return swiftkv::Run(argv[1], !(argc > 2 && std::strcmp(argv[2], "--no-special") == 0));
}
