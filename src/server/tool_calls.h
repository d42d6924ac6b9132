// Calls of functions in a model's answer: which tools a request allows, the schema of an answer that must be a call,
// and the reading of calls from the text.
//
//   ToolCallReader reader(&request.tools, "call-7f3a");
//   ToolCallReader::News news = reader.Push("<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>", true);
//   // news.content is empty, news.calls has one entry: f, "{}"
//
// Models write a call in one of a few ways, each as JSON of a `name` and `arguments` (or `parameters`): between
// <tool_call> and </tool_call> (Hermes, Qwen, SmolLM2), behind [TOOL_CALLS] (Mistral), or as the whole answer (Llama
// 3). Text that names no tool of the request is content.
#ifndef SWIFTKV_SERVER_TOOL_CALLS_H_
#define SWIFTKV_SERVER_TOOL_CALLS_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace swiftkv {

inline constexpr size_t kMaxTools = 128;  // of one conversation; OpenAI's limit

struct ToolRules {
  enum class Choice { kNone, kAuto, kRequired, kNamed };
  Choice choice = Choice::kNone;
  std::vector<std::string> names = {};  // of the functions that may be called; kNamed: one
  bool parallel = true;                 // more than one call an answer
};

// Reads `tools` and `tool_choice` of a request (OpenAI's chat completions); null: absent.
// Errors kInvalidInput, beginning with the field's name: another type, a choice without its tool, two tools of a name,
// more than kMaxTools.
Result<ToolRules> ReadToolRules(const nlohmann::ordered_json* tools, const nlohmann::ordered_json* tool_choice);

// The JSON schema of an answer that must be a call: kNamed, the function's parameters; kRequired, an array of calls.
// Error kInvalidInput: two tools define the same name under "$defs" differently.
Result<std::string> ForcedCallSchema(const ToolRules& rules, const nlohmann::ordered_json& tools);

// Reads one answer as it comes.
class ToolCallReader {
 public:
  // What of a call is new. A call's first entry bears `id` and `name`; `arguments` add up to JSON text.
  struct Call {
    int index = 0;
    std::string id = {};
    std::string name = {};
    std::string arguments = {};
  };
  struct News {
    std::string content;
    std::vector<Call> calls;
  };

  // Calls bear the ids `id_prefix`-0, -1, ... `rules` must outlive it.
  ToolCallReader(const ToolRules* rules, std::string id_prefix);

  // `text`: what has come since the last push; `last`: nothing else comes. Text that may be a call is held until it is
  // known.
  News Push(std::string_view text, bool last);
  // Whether the model chose to call (finish_reason "tool_calls"); false for kNamed, where it had no choice.
  bool has_calls() const { return calls_ > 0; }

 private:
  bool ReadCalls(std::string_view text, News* news);
  bool ReadValues(std::string_view text, std::vector<Call>* calls) const;
  bool ReadCall(const nlohmann::ordered_json& json, std::vector<Call>* calls) const;
  void Take(std::vector<Call> calls, News* news);
  size_t CertainContent() const;

  const ToolRules* rules_;
  std::string id_prefix_;
  std::string held_;
  bool begun_ = false;  // content has been told of, or, for kNamed, the call
  int calls_ = 0;
};

}  // namespace swiftkv

#endif  // SWIFTKV_SERVER_TOOL_CALLS_H_
