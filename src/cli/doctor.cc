// swiftkv doctor: this machine, as swiftkv sees it.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/parallel.h"
#include "bench/machine.h"
#include "cli/commands.h"
#include "cli/generation.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "engine/memory.h"
#include "kernels/ops.h"
#include "model/hub_cache.h"
#include "model/model_files.h"

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;

// "always", "madvise" or "never": what the kernel does about huge pages; the choice stands in brackets.
std::string HugePages() {
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string text;
  std::getline(file, text);
  const size_t begin = text.find('[');
  const size_t end = text.find(']');
  if (begin == std::string::npos || end == std::string::npos || end < begin) return "unknown";
  return text.substr(begin + 1, end - begin - 1);
}

Json Isa() {
  Json available = Json::array();
  for (const kernels::Backend* backend : kernels::AvailableBackends()) available.push_back(backend->name());
  Json json = {{"available", available}, {"chosen", nullptr}, {"why", ""}};
  const char* forced = std::getenv("SWIFTKV_ISA");
  if (const Status status = kernels::CheckBackendChoice(); !status) {
    json["why"] = status.error().message;
    return json;
  }
  json["chosen"] = kernels::DefaultBackend().name();
  json["why"] = forced != nullptr && *forced != '\0' ? "SWIFTKV_ISA asks for it" : "the fastest that this CPU can run";
  return json;
}

Json Gpu() {
  const Result<const kernels::Backend*> cuda = kernels::CudaBackend();
  if (!cuda) return {{"name", nullptr}, {"available_bytes", 0}, {"why", cuda.error().message}};
  return {{"name", (*cuda)->device_name()}, {"available_bytes", (*cuda)->memory().available_bytes()}, {"why", ""}};
}

Json Describe() {
  const MemoryInfo memory = ReadMemoryInfo();
  const Result<std::string> model = ResolveModelPath(std::string(kDefaultModel));
  std::error_code ignored;
  Json json;
  json["cpu"] = CpuModel();
  json["threads"] = Threads();
  json["isa"] = Isa();
  json["gpu"] = Gpu();
  json["memory"] = {{"total_bytes", memory.total_bytes}, {"available_bytes", memory.available_bytes}};
  json["transparent_huge_pages"] = HugePages();
  json["versions"] = {{"swiftkv", SWIFTKV_VERSION}, {"compiler", __VERSION__}};
  json["default_model"] = {{"name", kDefaultModel}, {"present", model.has_value()}, {"path", nullptr}};
  if (model) {
    json["default_model"]["path"] = *model;
  } else {
    json["default_model"]["note"] = model.error().message;
  }
  json["adapters"] = AdaptersByName();
  json["hub_cache"] = {{"path", HubCache()}, {"present", std::filesystem::is_directory(HubCache(), ignored)}};
  return json;
}

std::string Text(const Json& json) {
  std::string text;
  const auto line = [&](std::string_view name, const std::string& value) {
    text += fmt::format("{:<18} {}\n", name, value);
  };
  const Json& isa = json.at("isa");
  std::string available;
  for (const Json& name : isa.at("available")) available += (available.empty() ? "" : ", ") + name.get<std::string>();
  const auto mib = [&](const char* name) { return json.at("memory").at(name).get<int64_t>() >> 20; };
  const Json& model = json.at("default_model");
  line("CPU", json.at("cpu").get<std::string>());
  line("threads", std::to_string(json.at("threads").get<int>()));
  line("ISA", (isa.at("chosen").is_null() ? "none" : isa.at("chosen").get<std::string>()) + ": " +
                  isa.at("why").get<std::string>());
  line("ISAs available", available);
  const Json& gpu = json.at("gpu");
  line("GPU", gpu.at("name").is_null() ? "none: " + gpu.at("why").get<std::string>()
                                       : fmt::format("{}, {} MiB available", gpu.at("name").get<std::string>(),
                                                     gpu.at("available_bytes").get<int64_t>() >> 20));
  line("memory", fmt::format("{} MiB, {} MiB available", mib("total_bytes"), mib("available_bytes")));
  line("huge pages", json.at("transparent_huge_pages").get<std::string>());
  for (const auto& [name, version] : json.at("versions").items()) line(name, version.get<std::string>());
  line("default model", model.at(model.at("present").get<bool>() ? "path" : "note").get<std::string>());
  const auto adapters = json.at("adapters").get<std::vector<std::string>>();
  line("adapters", adapters.empty() ? "none" : fmt::format("{}", fmt::join(adapters, ", ")));
  line("hub cache", json.at("hub_cache").at("path").get<std::string>() +
                        (json.at("hub_cache").at("present").get<bool>() ? "" : " (absent)"));
  return text;
}

}  // namespace

RunCommand AddDoctorCommand(CLI::App* program) {
  auto output = std::make_shared<OutputFlags>();
  CLI::App* command = program->add_subcommand("doctor", "Say what this machine offers and what swiftkv makes of it");
  output->Add(command);
  FinishCommand(command, "Example:\n  swiftkv doctor\n");
  return [output] {
    const Json json = Describe();
    return WriteOutput(output->json ? JsonLine(json) : Text(json));
  };
}

}  // namespace swiftkv
