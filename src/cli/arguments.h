// Command lines as users of other tools write them, and flags that stand in a file.
//
//   std::vector<std::string> arguments = OwnSpelling(program, {argv + 1, argv + argc});
//   DropOverruledVariables(arguments, &program);   // before the command line is parsed
//   SWIFTKV_RETURN_IF_ERROR(ApplyConfigFile("serve.yaml", command));   // once the command line is parsed
#ifndef SWIFTKV_CLI_ARGUMENTS_H_
#define SWIFTKV_CLI_ARGUMENTS_H_

#include <string>
#include <vector>

#include "base/status.h"

namespace CLI {
class App;
}

namespace swiftkv {

// Flags as `program`'s commands spell them: --output_path (lm-eval, Hugging Face's Trainer) becomes --output-path, -pg
// (llama-bench) --pg. Values, unknown flags and what follows a lone "--" stay as they are.
std::vector<std::string> OwnSpelling(const CLI::App& program, std::vector<std::string> arguments);

// Takes the environment variable from a flag that is not among `arguments` (OwnSpelling's) and would be refused beside
// them: another flag there excludes it, or one that it needs is neither there nor in the environment.
void DropOverruledVariables(std::vector<std::string> arguments, CLI::App* program);

// Sets flags of `command` from a YAML map, as `vllm serve --config` reads it: names with - or _, true or false for a
// flag without value, a list for one that may be repeated. What a flag or an environment variable has set stays.
// Errors: those of ReadFile and ParseYaml; kInvalidInput, "path:line: ...": an unknown flag or a value that it does not
// take.
Status ApplyConfigFile(const std::string& path, CLI::App* command);

}  // namespace swiftkv

#endif  // SWIFTKV_CLI_ARGUMENTS_H_
