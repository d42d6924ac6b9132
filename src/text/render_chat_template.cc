// Renders chat templates for tools/compare_chat_templates.py and its like: reads one JSON object per line,
// {"template": ..., "variables": {...}, "now": seconds since the epoch}, and writes one per line, {"text": ...} or
// {"error": ...}.
#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "text/chat_template.h"

namespace {

using Json = nlohmann::ordered_json;

swiftkv::Result<std::string> Render(const Json& request) {
  auto chat = swiftkv::ChatTemplate::Parse(request.at("template").get_ref<const std::string&>(), "template");
  if (!chat) return tl::unexpected<swiftkv::Error>(chat.error());
  swiftkv::RenderOptions options;
  options.now = std::chrono::system_clock::time_point(std::chrono::seconds(request.value("now", int64_t{0})));
  return chat->Render(request.at("variables"), options);
}

}  // namespace

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    const auto text = Render(Json::parse(line));
    const Json answer = text ? Json{{"text", *text}} : Json{{"error", text.error().message}};
    std::cout << answer.dump(-1, ' ', true) << "\n" << std::flush;
  }
  return 0;
}
