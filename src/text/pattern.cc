#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pattern.h"

#include <pcre2.h>

#include "text/oniguruma.h"
#include "text/unicode.h"

namespace swiftkv {
namespace {

constexpr uint32_t kMatchLimit = 10'000'000;  // backtracking steps for one match
constexpr uint32_t kHeapLimitKib = 64 << 10;  // memory for one match
constexpr size_t kMaxJitStack = 8 << 20;      // bytes
constexpr size_t kMaxRegexBytes = 16 << 10;   // tokenizers' expressions have some hundred bytes

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
  SWIFTKV_ASSIGN_OR_RETURN(const std::string translated, OnigurumaToPcre2(regex));
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
