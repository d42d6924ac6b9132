#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pattern.h"

#include <pcre2.h>

#include "text/unicode.h"

namespace swiftkv {
namespace {

constexpr uint32_t kMatchLimit = 10'000'000;  // backtracking steps for one match
constexpr uint32_t kHeapLimitKib = 64 << 10;  // memory for one match
constexpr size_t kMaxJitStack = 8 << 20;      // bytes
constexpr size_t kMaxRegexBytes = 16 << 10;   // tokenizers' expressions have some hundred bytes
constexpr std::string_view kSpaces =
    R"(\t-\r\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kWords =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189})";
constexpr std::string_view kHexDigits = "0-9A-Fa-f";

// The members of an escape whose meaning differs between the two engines; empty if it does not.
std::string_view EscapeMembers(char escape) {
  switch (escape) {
    case 's':
    case 'S':
      return kSpaces;
    case 'w':
    case 'W':
      return kWords;
    case 'h':
    case 'H':
      return kHexDigits;
    default:
      return {};
  }
}

// Oniguruma's syntax as PCRE2's. They agree but for a few escapes and for nested classes.
Result<std::string> ToPcre2(const std::string& regex) {
  std::string out;
  bool in_class = false;
  for (size_t at = 0; at < regex.size(); ++at) {
    const char c = regex[at];
    if (c == '\\' && at + 1 < regex.size()) {
      const char escape = regex[++at];
      const std::string_view members = EscapeMembers(escape);
      const bool negated = escape >= 'A' && escape <= 'Z';
      if (members.empty()) {
        out.append({c, escape});
      } else if (!in_class) {
        out.append(negated ? "[^" : "[").append(members).append("]");
      } else if (!negated) {
        out.append(members);
      } else {
        return InvalidInput("'\\{}' inside a character class is not supported", escape);
      }
      continue;
    }
    if (in_class && ((c == '[' && regex.compare(at, 2, "[:") != 0) || regex.compare(at, 2, "&&") == 0)) {
      return InvalidInput("nested character classes are not supported");
    }
    if (in_class && c == '[') {  // [:alpha:]
      const size_t end = regex.find(":]", at);
      if (end == std::string::npos) return InvalidInput("unfinished character class");
      out.append(regex, at, end + 2 - at);
      at = end + 1;
      continue;
    }
    if (c == '[') {
      in_class = true;
      out.push_back(c);
      if (regex.compare(at + 1, 1, "^") == 0) out.push_back(regex[++at]);
      if (regex.compare(at + 1, 1, "]") == 0) out.append("\\").push_back(regex[++at]);
      continue;
    }
    if (c == ']') in_class = false;
    out.push_back(c);
  }
  return out;
}

struct MatchContext {
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 << 10, kMaxJitStack, nullptr);
  MatchContext() {
    if (!context) return;
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_set_heap_limit(context, kHeapLimitKib);
    if (stack) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~MatchContext() {
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
};

}  // namespace

struct Pattern::Regex {
  pcre2_code* code = nullptr;
  ~Regex() { pcre2_code_free(code); }

  // False: no further match, or one that takes more steps than the limit.
  bool Search(std::string_view text, size_t from, pcre2_match_data* data, PatternMatch& match) const {
    thread_local MatchContext context;
    const int count = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                                  PCRE2_NO_UTF_CHECK, data, context.context);
    if (count < 0) return false;
    const size_t* ends = pcre2_get_ovector_pointer(data);
    match = {ends[0], ends[1]};
    return ends[0] <= ends[1];  // \K in a lookahead could turn them round
  }
};

Pattern::Pattern() = default;
Pattern::Pattern(Pattern&&) noexcept = default;
Pattern& Pattern::operator=(Pattern&&) noexcept = default;
Pattern::~Pattern() = default;

Pattern Pattern::FromString(std::string literal) {
  Pattern pattern;
  pattern.literal_ = std::move(literal);
  return pattern;
}

Pattern Pattern::FromWords(WordPattern words) {
  Pattern pattern;
  pattern.words_ = words;
  return pattern;
}

Result<Pattern> Pattern::FromRegex(const std::string& regex) {
  Pattern pattern;
  pattern.words_ = FindWordPattern(regex);
  if (pattern.words_) return pattern;
  if (regex.size() > kMaxRegexBytes) return InvalidInput("longer than the limit of {} bytes", kMaxRegexBytes);
  SWIFTKV_ASSIGN_OR_RETURN(const std::string translated, ToPcre2(regex));
  int error = 0;
  size_t offset = 0;
  pattern.regex_ = std::make_unique<Regex>();
  pattern.regex_->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
  if (!pattern.regex_->code) {
    PCRE2_UCHAR message[256] = {};
    pcre2_get_error_message(error, message, sizeof message);
    return InvalidInput("{}", reinterpret_cast<const char*>(message));
  }
  pcre2_jit_compile(pattern.regex_->code, PCRE2_JIT_COMPLETE);  // without JIT it is only slower
  return pattern;
}

void Pattern::FindAll(std::string_view text, std::vector<PatternMatch>& matches) const {
  if (words_) {
    for (size_t at = 0; at < text.size();) {
      const size_t end = WordEnd(*words_, text, at);
      matches.push_back({at, end});
      at = end;
    }
    return;
  }
  if (!regex_) {
    if (literal_.empty()) return;
    for (size_t at = text.find(literal_); at != text.npos; at = text.find(literal_, at + literal_.size())) {
      matches.push_back({at, at + literal_.size()});
    }
    return;
  }
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  if (!data) return;
  size_t from = 0;
  size_t last_end = std::string_view::npos;
  PatternMatch match;
  while (from <= text.size() && regex_->Search(text, from, data, match)) {
    if (match.begin == match.end && match.end == last_end) {
      if (from == text.size()) break;
      from += Utf8Length(text[from]);
      continue;
    }
    matches.push_back(match);
    from = last_end = match.end;
  }
  pcre2_match_data_free(data);
}

void Pattern::ReplaceAll(std::string& text, std::string_view content) const {
  std::vector<PatternMatch> matches;
  FindAll(text, matches);
  if (matches.empty()) return;
  std::string out;
  out.reserve(text.size());
  size_t done = 0;
  for (const PatternMatch& match : matches) {
    out.append(text, done, match.begin - done).append(content);
    done = match.end;
  }
  out.append(text, done);
  text = std::move(out);
}

}  // namespace swiftkv
