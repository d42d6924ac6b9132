// Any bytes as the body of a request to each of the API's routes: a request or an error that is one sentence.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "server/openai_request.h"

namespace {

template <class T>
void Check(const swiftkv::Result<T>& parsed) {
  if (!parsed && parsed.error().message.empty()) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  Check(swiftkv::ParseCompletionRequest(body));
  Check(swiftkv::ParseChatRequest(body));
  Check(swiftkv::ParseTokenizeRequest(body));
  Check(swiftkv::ParseDetokenizeRequest(body));
  return 0;
}
