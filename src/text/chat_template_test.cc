#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;

// The rendered text, or "error: " and what went wrong.
std::string Render(const std::string& source, const Json& variables = Json::object(),
                   const RenderOptions& options = {}) {
  auto chat = ChatTemplate::Parse(source, "t");
  if (!chat) return "error: " + chat.error().message;
  auto text = chat->Render(variables, options);
  return text ? *text : "error: " + text.error().message;
}

// What transformers renders: tools/make_template_goldens.py (transformers 5.23.0, jinja2 3.1.6).
class Golden : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    setenv("TZ", "UTC", 1);
    tzset();
    std::ifstream file(SWIFTKV_SOURCE_DIR "/tests/golden/chat_template/rendered.json");
    golden_ = Json::parse(file);
    options_.now = std::chrono::system_clock::time_point(std::chrono::seconds(golden_["now"].get<int64_t>()));
  }

  // Errors that templates raise are passed on word for word; of the others the place is ours, the words mostly
  // Python's.
  static void Check(const Json& expected, const std::string& source, const Json& variables) {
    SCOPED_TRACE(expected["name"].get<std::string>());
    const std::string got = Render(source, variables, options_);
    if (expected.contains("text")) {
      EXPECT_EQ(got, expected["text"].get<std::string>());
    } else if (expected.contains("raised")) {
      EXPECT_EQ(got, "error: " + expected["raised"].get<std::string>());
    } else {
      EXPECT_EQ(got.rfind("error: t:", 0), 0u) << got << "\nexpected " << expected["error"];
    }
  }

  static Json golden_;
  static RenderOptions options_;
};
Json Golden::golden_;
RenderOptions Golden::options_;

TEST_F(Golden, Features) {
  for (const Json& feature : golden_["features"]) Check(feature, feature["name"], golden_["variables"]);
}

TEST_F(Golden, Families) {
  for (const Json& item : golden_["families"]) {
    const std::string conversation = item["conversation"];
    Json variables = golden_["tokens"];
    variables["messages"] = golden_["conversations"][conversation];
    if (item["tools"]) variables["tools"] = golden_["tools"];
    variables["add_generation_prompt"] = variables["messages"].size() % 2 == 1;
    if (conversation == "turns") {
      variables["documents"] = golden_["documents"];
      variables["enable_thinking"] = false;
    }
    Check(item, golden_["templates"][item["family"].get<std::string>()], variables);
  }
}

TEST(ChatTemplate, NamesOriginAndLineInErrors) {
  EXPECT_EQ(Render("a\n{% if %}"), "error: t:2: Expected an expression, got 'end of statement block'");
  EXPECT_EQ(Render("a\n\n{{ x.y }}"), "error: t:3: 'x' is undefined");
  EXPECT_EQ(Render("{% macro m(a) %}\n{{ a.b.c }}{% endmacro %}\n\n{{ m({}) }}"),
            "error: t:2: 'dict object' has no attribute 'b'");
  EXPECT_EQ(Render("{{ raise_exception('No.') }}"), "error: No.");
  EXPECT_EQ(Render("{{ messages }}", {{"messages", {1}}}), "error: messages[0] is not an object");
}

TEST(ChatTemplate, KeepsToItsLimits) {
  RenderOptions options;
  options.limits = {.steps = 100'000, .depth = 300, .output_bytes = 1 << 16, .memory_bytes = 1 << 20};
  const std::string nested =
      "{% set ns = namespace(x=[]) %}{% for i in range(1000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}";
  for (const auto& [source, limit] : std::initializer_list<std::pair<std::string, std::string>>{
           {"{{ 'a' * 10 ** 9 }}", "output_bytes"},
           {"{{ 'ab'.center(10 ** 12) }}", "output_bytes"},
           {"{{ '%1000000000d' % 1 }}", "output_bytes"},
           {"{{ '{:1000000000}'.format(1) }}", "output_bytes"},
           {"{{ '\t'.expandtabs(10 ** 15) }}", "output_bytes"},
           {"{{ [0] * 10 ** 9 }}", "memory_bytes"},
           {"{{ [1]|batch(10 ** 12, 0)|list }}", "memory_bytes"},
           {"{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "steps"},
           {"{% for i in range(100000) %}{{ 'aaaaaaaa' }}{% endfor %}", "output_bytes"},
           {"{% set ns = namespace(s='ab') %}{% for i in range(99) %}{% set ns.s = ns.s.replace('', ns.s) %}{% endfor "
            "%}",
            "output_bytes"},
           {"{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
            "memory_bytes"},
           {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "depth"},
           {"{% for x in [1] recursive %}{{ loop([x]) }}{% endfor %}", "depth"},
           {nested, "depth"},
           {"{% set ns = namespace(x=[]) %}{% for i in range(1000) %}{% set ns.x = ns.x|map('list') %}{% endfor %}"
            "{{ ns.x|list }}",
            "depth"},
           {"{% set ns = namespace(x=(1,)) %}{% for i in range(200) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ "
            "{ns.x: 1} }}",
            "steps"},
           {"{% set ns = namespace(x=[1]) %}{% for i in range(200) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ "
            "ns.x|tojson }}",
            "output_bytes"},
           {"{% set ns = namespace(a=none) %}{% for i in range(1000) %}{% set ns.a = namespace(a=[ns.a]) %}{% endfor %}"
            "{{ ns }}",
            "depth"},
           {"{% set ns = namespace(a=[1]) %}{% for i in range(1000) %}{% set ns.a = [1]|select('in', ns.a) %}{% endfor "
            "%}{{ ns.a|list }}",
            "depth"}}) {
    const std::string got = Render(source, Json::object(), options);
    EXPECT_NE(got.find("more than its limit of " + limit), std::string::npos) << source << "\n" << got.substr(0, 200);
  }
  auto chat = ChatTemplate::Parse("{{ 'a' * 10 ** 9 }}", "t");
  EXPECT_EQ(chat->Render(Json::object(), options).error().code, ErrorCode::kResourceExhausted);
}

// Each operation on a text of 20,000 bytes costs 78 steps.
TEST(ChatTemplate, WorkOnTextIsPaidFor) {
  RenderOptions options;
  options.limits = {.steps = 20'000, .depth = 300, .output_bytes = 1 << 20, .memory_bytes = 1 << 24};
  Json entries = Json::object();
  for (int i = 0; i < 900; ++i) entries["k" + std::to_string(i)] = 1;
  for (const std::string operation :
       {"s.ljust(1)", "s.rjust(1)", "s.center(1)", "s.zfill(1)", "s.isidentifier()", "s|truncate(30000)",
        "s.removeprefix(s)", "s|int", "s|float", "percent % 1", "braces.format_map(m)", "[{}]|map(attribute=s)|first",
        "'{k899}'.format_map(d)", "'x'.format(**d)"}) {
    const std::string source =
        "{% set s = 'a' * 20000 %}{% set m = {s: 1} %}{% set braces = '{' ~ s ~ '}' %}{% set percent = '%' ~ '-' * "
        "20000 "
        "~ 'd' %}{% for i in range(250) %}{% set x = " +
        operation + " %}{% endfor %}";
    const std::string got = Render(source, {{"d", entries}}, options);
    EXPECT_NE(got.find("more than its limit of steps"), std::string::npos) << operation << "\n" << got.substr(0, 200);
  }
}

// Chains whose nesting nothing counts: of namespaces, and of generators that hold arguments or what they delivered.
TEST(ChatTemplate, FreesLongChains) {
  for (const std::string link :
       {"{% set ns.x = namespace(x=ns.x) %}", "{% set ns.x = [1]|map('default', ns.x) %}",
        "{% set next = [ns]|map(attribute='x')|batch(2) %}{% set _ = next|first %}{% set ns.x = next %}"}) {
    EXPECT_EQ(Render("{% set ns = namespace(x=[1]) %}{% for i in range(100000) %}" + link + "{% endfor %}End"), "End");
  }
}

TEST(ChatTemplate, ErrorsNameTheOriginThatIsAskedFor) {
  RenderOptions options;
  options.origin = "chat template";
  EXPECT_EQ(Render("a\n\n{{ x.y }}", Json::object(), options), "error: chat template:3: 'x' is undefined");
  EXPECT_EQ(Render("{{ raise_exception('No.') }}", Json::object(), options), "error: No.");
}

TEST(ChatTemplate, RefusesWhatIsNestedTooDeeplyOrTooLarge) {
  const auto times = [](const std::string& text, int count) {
    std::string result;
    for (int i = 0; i < count; ++i) result += text;
    return result;
  };
  for (const std::string& source :
       {"{{ " + times("(", 100'000), "{{ " + times("[", 5000) + times("]", 5000) + " }}",
        "{{ " + times("-", 5000) + "1 }}", "{{ " + times("not ", 5000) + "1 }}", "{{ 1" + times(" + 1", 5000) + " }}",
        "{{ x" + times(".x", 5000) + " }}", "{{ 1" + times(" if 1 else 1", 5000) + " }}",
        "{{ 1" + times("|abs", 5000) + " }}", times("{% if 1 %}", 5000)}) {
    EXPECT_NE(Render(source).find("nested too deeply"), std::string::npos) << source.substr(0, 40);
  }
  EXPECT_NE(Render(std::string(ChatTemplate::kMaxSourceBytes + 1, ' ')).find("bytes, more than"), std::string::npos);
  EXPECT_EQ(Render("\xff"), "error: t: the chat template is not UTF-8");
  Json deep = 1;
  for (int i = 0; i < 2000; ++i) deep = Json::array({std::move(deep)});
  EXPECT_NE(Render("{{ x }}", {{"x", deep}}).find("limit of depth"), std::string::npos);
}

TEST(ChatTemplate, FreesWhatRefersToItself) {
  // Found by the leak sanitizer where it is wrong.
  EXPECT_EQ(Render("{% set ns = namespace() %}{% set ns.me = ns %}{% set ns.all = [ns, ns] %}{{ ns.me is sameas ns }}"),
            "True");
  EXPECT_EQ(Render("{% macro m() %}{{ m }}{% endmacro %}{% set m2 = m %}{{ m2() }}"), "<Macro 'm'>");
  EXPECT_EQ(Render("{% for x in [1] %}{{ loop.changed([loop]) }}{% endfor %}"), "True");
  EXPECT_EQ(
      Render("{% set ns = namespace() %}{% for x in [1, 2] %}{% set ns.loop = loop %}{% endfor %}{{ ns.loop.index }}"),
      "2");
}

TEST(ChatTemplate, PassesReasoningUnderItsNames) {
  const Json messages = {{{"role", "assistant"}, {"thinking", "Hm."}}};
  EXPECT_EQ(Render("{{ messages[0].reasoning_content }}{{ tools is none }}", {{"messages", messages}}), "Hm.True");
}

}  // namespace
}  // namespace swiftkv
