// How long prompts and outputs are: drawn at random, or from a CSV file of lengths, or from a trace that also says when
// the requests came.
//
//   SWIFTKV_ASSIGN_OR_RETURN(std::vector<RequestLengths> trace, ReadLengthsFile("azure_llm_2023_code.csv", true));
#ifndef SWIFTKV_BENCH_LENGTHS_H_
#define SWIFTKV_BENCH_LENGTHS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace swiftkv {

inline constexpr int64_t kMaxLengthsFileBytes = int64_t{1} << 30;
inline constexpr int64_t kMaxRequestTokens = int64_t{1} << 24;  // of one prompt or output

struct RequestLengths {
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
  double arrival = 0;       // seconds after the trace's first request
  std::string prompt = {};  // where a file has it; then its tokens are not counted yet
};

// Uniform in [len (1 - range_ratio), len (1 + range_ratio)], at least 1; range_ratio in [0, 1).
std::vector<RequestLengths> RandomLengths(int64_t count, int64_t prompt_tokens, int64_t output_tokens,
                                          double range_ratio, uint64_t seed);

// A CSV file with a header. Columns, in any order: prompt tokens (num_prefill_tokens, ContextTokens, Request tokens,
// input_tokens, prompt_len), output tokens (num_decode_tokens, GeneratedTokens, Response tokens, output_tokens,
// output_len) and, for a trace, when the request came (TIMESTAMP, Timestamp, arrival: a date with time, or seconds).
// A trace is sorted by arrival. Rows without prompt or output tokens are left out.
// Errors, with file and line: kNotFound, kIo, kInvalidInput (a missing column, a value out of range).
Result<std::vector<RequestLengths>> ReadLengthsFile(const std::string& path, bool with_arrivals);

// JSON lines, each an object with "prompt" and, if it is not `output_tokens`, "output_tokens": vLLM's custom dataset.
// Errors, with file and line: kNotFound, kIo, kInvalidInput (no prompt, a value out of range).
Result<std::vector<RequestLengths>> ReadPromptsFile(const std::string& path, int64_t output_tokens);

// "2023-11-16 18:17:03.9799600", with or without an offset from UTC ("+00:00", "Z"), or "1234.5": seconds since a point
// that is the same for all; nullopt if it is neither.
std::optional<double> ParseTimestamp(std::string_view text);

}  // namespace swiftkv

#endif  // SWIFTKV_BENCH_LENGTHS_H_
