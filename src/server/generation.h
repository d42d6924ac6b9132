// One request to /v1/completions or /v1/chat/completions on its way through the engine: submits its prompts, turns what
// comes back into one JSON answer or a stream of events, and ends them all when the client goes away.
#ifndef SWIFTKV_SERVER_GENERATION_H_
#define SWIFTKV_SERVER_GENERATION_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/async_engine.h"
#include "engine/load.h"
#include "server/http.h"
#include "server/metrics.h"
#include "server/openai_request.h"

namespace swiftkv {

// What the server's parts share. Everything outlives every request.
struct ServerContext {
  const LoadedModel* model = nullptr;
  AsyncEngine* engine = nullptr;
  ServerMetrics* metrics = nullptr;
  std::vector<std::string> model_names;  // the first is the one that answers bear
  double request_timeout_s = 0;          // after it a prompt's choices end with an error; 0: never
  // Runs work that may take long on a thread where it stalls no connection; `failed` there if memory is out.
  std::function<void(std::function<void()> work, std::function<void()> failed)> run_aside;
};

// `prompt_token_ids`: by prompt; for a chat the one conversation. Answers through `reply`, also with errors.
void StartGeneration(const ServerContext& context, GenerationRequest request,
                     std::vector<std::vector<int32_t>> prompt_token_ids, const std::string& request_id,
                     const HttpReplyPtr& reply);

}  // namespace swiftkv

#endif  // SWIFTKV_SERVER_GENERATION_H_
