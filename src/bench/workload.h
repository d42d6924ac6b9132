// The requests of a run: lengths, times of arrival, and prompts of those lengths.
//
//   SWIFTKV_ASSIGN_OR_RETURN(Workload workload, MakeWorkload({.num_prompts = 100, .arrivals = {.request_rate = 2}}));
//   SWIFTKV_RETURN_IF_ERROR(FillWithText(*tokenizer, seed, &workload.requests));
#ifndef SWIFTKV_BENCH_WORKLOAD_H_
#define SWIFTKV_BENCH_WORKLOAD_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "bench/arrivals.h"
#include "bench/load_run.h"
#include "text/tokenizer.h"

namespace swiftkv {

enum class WorkloadSource {
  kRandom,       // lengths drawn around prompt_tokens and output_tokens
  kLengthsFile,  // lengths drawn without repetition from a file, in the file's order
  kTrace,        // a file's first requests with their own times of arrival
  kCustom,       // a file's first prompts; where it has too few, from its beginning again
};
// "random", "lengths-file", "trace", "custom"
Result<WorkloadSource> ParseDataset(const std::string& name);

inline constexpr int64_t kMaxPrompts = 10'000'000;

struct WorkloadOptions {
  WorkloadSource dataset = WorkloadSource::kRandom;
  std::string path = {};  // of the file
  int64_t num_prompts = 1000;
  int64_t prompt_tokens = 1024;
  int64_t output_tokens = 128;
  double range_ratio = 0;
  double speedup = 1;            // a trace's requests come that many times faster
  int64_t max_model_len = 0;     // requests of more tokens, prompt and output together, are left out; 0: none
  ArrivalOptions arrivals = {};  // not of a trace
  uint64_t seed = 0;
};

struct Workload {
  std::vector<LoadRequest> requests;  // by arrival
  int64_t left_out = 0;               // because of max_model_len
  int64_t repeated = 0;               // requests whose prompt an earlier one has, for the file has no more
  double request_rate = 0;            // the mean one, requests a second; may be infinite
};

// Without prompts, but those of a file. Errors: those of ReadLengthsFile and ReadPromptsFile; kInvalidInput (a number
// out of range, nothing left).
Result<Workload> MakeWorkload(const WorkloadOptions& options);

// Sets prompt where there is none, and prompt_tokens to what the text really encodes to. Errors: those of
// PromptMaker::Create.
Status FillWithText(const Tokenizer& tokenizer, uint64_t seed, std::vector<LoadRequest>* requests);
// Sets prompt_token_ids.
void FillWithTokenIds(int64_t vocab_size, uint64_t seed, std::vector<LoadRequest>* requests);

}  // namespace swiftkv

#endif  // SWIFTKV_BENCH_WORKLOAD_H_
