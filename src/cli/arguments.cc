#include "cli/arguments.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cstdlib>
#include <set>
#include <string_view>
#include <utility>

#include "base/file.h"
#include "base/printable.h"
#include "distill/yaml_value.h"

namespace swiftkv {
namespace {

// With one dash: more letters might be a short flag with its value.
constexpr size_t kMaxOneDashLetters = 3;

std::string WithDashes(std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

// How `command` would spell a flag, if it has it.
std::string LongFlag(std::string_view flag) {
  if (flag.starts_with("--")) return WithDashes(std::string(flag));
  const bool may_be_long = flag.size() > 2 && flag.size() <= 1 + kMaxOneDashLetters;
  return (may_be_long ? "-" : "") + std::string(flag);
}

bool TakesValue(const CLI::Option& option) { return option.get_items_expected_min() > 0; }

Result<std::vector<std::string>> Texts(const YamlValue& value, const std::string& place) {
  if (value.kind == YamlValue::Kind::kScalar) return std::vector<std::string>{value.scalar};
  std::vector<std::string> texts;
  for (const YamlValue& item : value.items) {
    if (value.kind == YamlValue::Kind::kList && item.kind == YamlValue::Kind::kScalar) texts.push_back(item.scalar);
  }
  if (texts.empty() || texts.size() < value.items.size()) {
    return InvalidInput("{} needs a value, or a list of them", place);
  }
  return texts;
}

// As if the flag stood on the command line.
Status SetOption(const YamlValue& value, const std::string& place, const std::string& name, CLI::Option* option) {
  SWIFTKV_ASSIGN_OR_RETURN(std::vector<std::string> texts, Texts(value, place));
  try {
    if (!TakesValue(*option)) {
      for (std::string& text : texts) text = option->get_flag_value(name, text);
    }
    option->add_result(std::move(texts));
    option->run_callback();
  } catch (const CLI::Error& error) {
    return InvalidInput("{}: {}", place, Printable(error.what()));
  }
  return Ok();
}

// A flag on the command line that its command knows.
struct Flag {
  std::string* argument;  // "--top_k=40"
  size_t length;          // of the flag in it
  std::string spelling;   // "--top-k"
  const CLI::Option* option;
};

// Visits the flags before a lone "--"; returns the command that they are for. App: CLI::App, const or not.
template <class App, class Visit>
App* WalkFlags(App* program, std::vector<std::string>* arguments, const Visit& visit) {
  App* command = program;
  bool is_value = false;
  for (std::string& argument : *arguments) {
    if (std::exchange(is_value, false)) continue;
    if (argument == "--") break;
    if (!argument.starts_with('-')) {
      const auto named = command->get_subcommands([&](const CLI::App* each) { return each->check_name(argument); });
      if (!named.empty()) command = named.front();
      continue;
    }
    const size_t end = std::min(argument.find('='), argument.size());
    std::string flag = LongFlag(std::string_view(argument).substr(0, end));
    const CLI::Option* option = command->get_option_no_throw(flag);
    if (option == nullptr) {
      flag = argument.substr(0, end);
      option = command->get_option_no_throw(flag);
    }
    if (option == nullptr) continue;
    is_value = end == argument.size() && TakesValue(*option);
    visit(Flag{&argument, end, std::move(flag), option});
  }
  return command;
}

}  // namespace

std::vector<std::string> OwnSpelling(const CLI::App& program, std::vector<std::string> arguments) {
  WalkFlags(&program, &arguments, [](const Flag& flag) { flag.argument->replace(0, flag.length, flag.spelling); });
  return arguments;
}

void DropOverruledVariables(std::vector<std::string> arguments, CLI::App* program) {
  std::set<const CLI::Option*> given;
  CLI::App* const command = WalkFlags(program, &arguments, [&](const Flag& flag) { given.insert(flag.option); });
  const auto is_given = [&](const CLI::Option* option) { return given.contains(option); };
  const auto is_set = [&](const CLI::Option* option) {
    return is_given(option) || std::getenv(option->get_envname().c_str()) != nullptr;
  };
  for (CLI::Option* const option : command->get_options()) {
    if (is_given(option)) continue;
    const std::set<CLI::Option*> excluded = option->get_excludes();
    const std::set<CLI::Option*> needed = option->get_needs();
    const bool is_overruled = std::any_of(excluded.begin(), excluded.end(), is_given);
    const bool counts = std::all_of(needed.begin(), needed.end(), is_set);
    if (is_overruled || !counts) option->envname("");
  }
}

Status ApplyConfigFile(const std::string& path, CLI::App* command) {
  SWIFTKV_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxYamlBytes));
  SWIFTKV_ASSIGN_OR_RETURN(const YamlValue root, ParseYaml(text, path));
  if (root.kind != YamlValue::Kind::kMap && root.kind != YamlValue::Kind::kNull) {
    return InvalidInput("{}: it must be a YAML map from flags to their values", path);
  }
  std::set<const CLI::Option*> set_here;
  for (size_t i = 0; i < root.keys.size(); ++i) {
    const YamlValue& value = root.items[i];
    const std::string name = WithDashes(root.keys[i]);
    const std::string place = fmt::format("{}:{}: {}", path, value.line, Printable(root.keys[i]));
    CLI::Option* const option = command->get_option_no_throw("--" + name);
    if (option == nullptr || name == "help" || name == "config") {
      return InvalidInput("{} is no flag that a file for {} may set", place, command->get_name());
    }
    if (set_here.contains(option)) return InvalidInput("{}: this flag stands there already", place);
    if (!option->empty()) continue;
    SWIFTKV_RETURN_IF_ERROR(SetOption(value, place, name, option));
    set_here.insert(option);
  }
  return Ok();
}

}  // namespace swiftkv
