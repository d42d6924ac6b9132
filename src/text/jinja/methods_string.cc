// Methods of strings. Strings that jinja2 marks as safe (Markup) stay so, and escape what is joined to them.
#include <algorithm>
#include <cstring>
#include <iterator>

#include "text/jinja/builtins.h"
#include "text/jinja/format.h"
#include "text/jinja/ops.h"
#include "text/jinja/unicode.h"

namespace swiftkv::jinja {
namespace {

Value MakeLike(Runtime& runtime, const Value& self, std::string text) {
  return Value::String(&runtime.budget, std::move(text), self.markup());
}

Status NeedString(const Value& value, std::string_view function) {
  if (value.Is(Kind::kString)) return Ok();
  return InvalidInput("{}() argument must be str, not {}", function, TypeName(value));
}

// Text that is put into `self`: escaped where `self` is Markup and the text is not.
std::string TextFor(const Value& self, const Value& text) {
  return self.markup() && !text.markup() ? EscapeHtml(text.text()) : std::string(text.text());
}

size_t FindFrom(std::string_view text, std::string_view part, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (part.empty()) return from;
  const void* found = memmem(text.data() + from, text.size() - from, part.data(), part.size());
  return found == nullptr ? std::string_view::npos : static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

// The last place of `part` that ends by `end`.
size_t FindLast(std::string_view text, std::string_view part, size_t end) {
  if (part.size() > end) return std::string_view::npos;
  if (part.empty()) return end;
  const std::string reversed_text(text.substr(0, end).rbegin(), text.substr(0, end).rend());
  const std::string reversed_part(part.rbegin(), part.rend());
  const size_t at = FindFrom(reversed_text, reversed_part, 0);
  return at == std::string_view::npos ? at : end - at - part.size();
}

// ---- Case and character classes.

template <std::string (*Map)(std::string_view)>
Result<Value> MapText(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_RETURN_IF_ERROR(Bind(arguments, "str method", {}, 0));
  if (!runtime.budget.AllowString(self.text().size())) return runtime.Exhausted();
  return MakeLike(runtime, self, Map(self.text()));
}

template <bool (*Predicate)(char32_t), bool of_empty>
Result<Value> AllChars(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_RETURN_IF_ERROR(Bind(arguments, "str method", {}, 0));
  runtime.budget.SpendBytes(self.text().size());
  if (self.text().empty()) return Value::Bool(of_empty);
  for (size_t i = 0, length; i < self.text().size(); i += length) {
    if (!Predicate(CharAt(self.text(), i, &length))) return Value::Bool(false);
  }
  return Value::Bool(true);
}

bool IsAsciiChar(char32_t c) { return c < 0x80; }

template <bool (*Wanted)(char32_t), bool (*Refused)(char32_t)>
Result<Value> OneCase(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_RETURN_IF_ERROR(Bind(arguments, "str method", {}, 0));
  runtime.budget.SpendBytes(self.text().size());
  bool seen = false;
  for (size_t i = 0, length; i < self.text().size(); i += length) {
    const char32_t c = CharAt(self.text(), i, &length);
    if (Refused(c) || IsTitle(c)) return Value::Bool(false);
    seen = seen || Wanted(c);
  }
  return Value::Bool(seen);
}

Result<Value> IsTitleCased(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_RETURN_IF_ERROR(Bind(arguments, "istitle", {}, 0));
  runtime.budget.SpendBytes(self.text().size());
  bool cased = false, previous_cased = false;
  for (size_t i = 0, length; i < self.text().size(); i += length) {
    const char32_t c = CharAt(self.text(), i, &length);
    const bool starts = IsUpper(c) || IsTitle(c), continues = IsLower(c);
    if ((starts && previous_cased) || (continues && !previous_cased)) return Value::Bool(false);
    previous_cased = starts || continues;
    cased = cased || previous_cased;
  }
  return Value::Bool(cased);
}

Result<Value> IsIdentifier(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_RETURN_IF_ERROR(Bind(arguments, "isidentifier", {}, 0));
  runtime.budget.SpendBytes(self.text().size());
  for (size_t i = 0, length; i < self.text().size(); i += length) {
    const char32_t c = CharAt(self.text(), i, &length);
    if (i == 0 ? !IsIdentifierStart(c) : !IsIdentifierPart(c)) return Value::Bool(false);
  }
  return Value::Bool(!self.text().empty());
}

// ---- Cutting.

template <bool left, bool right>
Result<Value> StripMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "strip", {"chars"}, 0));
  runtime.budget.SpendBytes(self.text().size());
  if (bound[0] == nullptr || bound[0]->Is(Kind::kNone)) return Part(self, Strip(self.text(), nullptr, left, right));
  if (!bound[0]->Is(Kind::kString)) return InvalidInput("strip arg must be None or str");
  const std::string_view characters = bound[0]->text();
  SWIFTKV_RETURN_IF_ERROR(runtime.Step(static_cast<int64_t>(
      std::min(static_cast<double>(self.text().size()) * static_cast<double>(characters.size()) / 4096, 1e15))));
  return Part(self, Strip(self.text(), &characters, left, right));
}

template <bool prefix>
Result<Value> RemoveAffix(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "removeprefix", {"affix"}, 1));
  SWIFTKV_RETURN_IF_ERROR(NeedString(*bound[0], prefix ? "removeprefix" : "removesuffix"));
  const std::string_view text = self.text(), affix = bound[0]->text();
  runtime.budget.SpendBytes(affix.size());
  if (prefix && text.substr(0, affix.size()) == affix) return Part(self, text.substr(affix.size()));
  if (!prefix && text.size() >= affix.size() && text.substr(text.size() - affix.size()) == affix) {
    return Part(self, text.substr(0, text.size() - affix.size()));
  }
  return self;
}

struct SplitArguments {
  bool by_space = true;
  std::string_view separator;
  int64_t limit = -1;
};

Result<SplitArguments> BindSplit(const Arguments& arguments, std::string_view name) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, name, {"sep", "maxsplit"}, 0));
  SplitArguments split;
  if (bound[0] != nullptr && !bound[0]->Is(Kind::kNone)) {
    if (!bound[0]->Is(Kind::kString)) return InvalidInput("must be str or None, not {}", TypeName(*bound[0]));
    if (bound[0]->text().empty()) return InvalidInput("empty separator");
    split.by_space = false;
    split.separator = bound[0]->text();
  }
  if (bound[1] != nullptr) {
    SWIFTKV_ASSIGN_OR_RETURN(split.limit, ToIndex(*bound[1]));
  }
  return split;
}

// The end of the run of (non-)space at `position`.
size_t SkipWhile(std::string_view text, size_t position, bool space) {
  size_t length;
  while (position < text.size() && IsSpace(CharAt(text, position, &length)) == space) position += length;
  return position;
}

Result<Value> Split(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const SplitArguments split, BindSplit(arguments, "split"));
  const std::string_view text = self.text();
  runtime.budget.SpendBytes(text.size());
  std::vector<Value> parts;
  size_t position = split.by_space ? SkipWhile(text, 0, true) : 0;
  while (split.by_space ? position < text.size() : true) {
    SWIFTKV_RETURN_IF_ERROR(runtime.Step());
    const bool last = split.limit >= 0 && static_cast<int64_t>(parts.size()) >= split.limit;
    const size_t end = last             ? std::string_view::npos
                       : split.by_space ? SkipWhile(text, position, false)
                                        : FindFrom(text, split.separator, position);
    parts.push_back(Part(self, text.substr(position, end - position)));
    if (end == std::string_view::npos) break;
    position = split.by_space ? SkipWhile(text, end, true) : end + split.separator.size();
  }
  return Value::List(&runtime.budget, std::move(parts));
}

// The start of the run of (non-)space that ends at `end`.
size_t SkipBack(std::string_view text, size_t end, bool space) {
  size_t length;
  while (end > 0) {
    const size_t start = PreviousChar(text, end);
    if (IsSpace(CharAt(text, start, &length)) != space) break;
    end = start;
  }
  return end;
}

// By the separator, from the right: in the reversed text, so that the time stays linear.
Result<Value> RightSplitBy(Runtime& runtime, const Value& self, const SplitArguments& split) {
  const std::string_view text = self.text();
  const std::string reversed(text.rbegin(), text.rend());
  const std::string separator(split.separator.rbegin(), split.separator.rend());
  std::vector<Value> parts;
  for (size_t position = 0;;) {
    SWIFTKV_RETURN_IF_ERROR(runtime.Step());
    const bool last = split.limit >= 0 && static_cast<int64_t>(parts.size()) >= split.limit;
    const size_t found = last ? std::string_view::npos : FindFrom(reversed, separator, position);
    const size_t end = std::min(found, text.size());
    parts.push_back(Part(self, text.substr(text.size() - end, end - position)));
    if (found == std::string_view::npos) break;
    position = found + separator.size();
  }
  std::reverse(parts.begin(), parts.end());
  return Value::List(&runtime.budget, std::move(parts));
}

Result<Value> RightSplit(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const SplitArguments split, BindSplit(arguments, "rsplit"));
  const std::string_view text = self.text();
  if (!runtime.budget.AllowString(text.size())) return runtime.Exhausted();
  if (!split.by_space) return RightSplitBy(runtime, self, split);
  std::vector<Value> parts;
  size_t end = SkipBack(text, text.size(), true);
  while (end > 0) {
    SWIFTKV_RETURN_IF_ERROR(runtime.Step());
    const bool last = split.limit >= 0 && static_cast<int64_t>(parts.size()) >= split.limit;
    const size_t begin = last ? 0 : SkipBack(text, end, false);
    parts.push_back(Part(self, text.substr(begin, end - begin)));
    end = SkipBack(text, begin, true);
  }
  std::reverse(parts.begin(), parts.end());
  return Value::List(&runtime.budget, std::move(parts));
}

bool IsLineBreak(char32_t c) {
  return (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

Result<Value> SplitLines(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "splitlines", {"keepends"}, 0));
  const bool keep = bound[0] != nullptr && Truth(*bound[0]);
  const std::string_view text = self.text();
  std::vector<Value> lines;
  size_t start = 0;
  while (start < text.size()) {
    SWIFTKV_RETURN_IF_ERROR(runtime.Step());
    size_t end = start, length = 0;
    while (end < text.size() && !IsLineBreak(CharAt(text, end, &length))) end += length;
    size_t next = end < text.size() ? end + length : end;
    if (text.substr(end, 2) == "\r\n") next = end + 2;
    runtime.budget.SpendBytes(next - start);
    lines.push_back(Part(self, text.substr(start, (keep ? next : end) - start)));
    start = next;
  }
  return Value::List(&runtime.budget, std::move(lines));
}

template <bool from_right>
Result<Value> Partition(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "partition", {"sep"}, 1));
  SWIFTKV_RETURN_IF_ERROR(NeedString(*bound[0], "partition"));
  const std::string_view text = self.text(), separator = bound[0]->text();
  if (separator.empty()) return InvalidInput("empty separator");
  runtime.budget.SpendBytes(text.size());
  const size_t at = from_right ? FindLast(text, separator, text.size()) : FindFrom(text, separator, 0);
  const Value empty = Part(self, text.substr(0, 0));
  if (at == std::string_view::npos) {
    return Value::Tuple(&runtime.budget,
                        from_right ? std::vector<Value>{empty, empty, self} : std::vector<Value>{self, empty, empty});
  }
  return Value::Tuple(&runtime.budget, {Part(self, text.substr(0, at)), Part(self, text.substr(at, separator.size())),
                                        Part(self, text.substr(at + separator.size()))});
}

// ---- Searching.

// The bytes of `text` from character `start` to character `stop`, clamped as slices are. `*offset` is the number of
// characters before them; false if start lies beyond the end.
struct Window {
  bool valid = true;
  size_t begin = 0;
  size_t end = 0;
};

Result<Window> MakeWindow(std::string_view text, const Value* start, const Value* stop) {
  const auto size = static_cast<int64_t>(CountChars(text));
  int64_t range[2] = {0, size};
  const Value* given[2] = {start, stop};
  for (int i = 0; i < 2; ++i) {
    if (given[i] == nullptr || given[i]->Is(Kind::kNone)) continue;
    SWIFTKV_ASSIGN_OR_RETURN(range[i], ToIndex(*given[i]));
    if (range[i] < 0) range[i] = std::max<int64_t>(range[i] + size, 0);
  }
  Window window;
  window.valid = range[0] <= size && range[0] <= range[1];
  if (!window.valid) return window;
  window.begin = CharOffset(text, static_cast<size_t>(range[0]));
  window.end = CharOffset(text, static_cast<size_t>(std::min(range[1], size)));
  return window;
}

template <bool suffix>
Result<Value> HasAffix(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound,
                           Bind(arguments, suffix ? "endswith" : "startswith", {"affix", "start", "end"}, 1));
  const std::vector<Value> one = {*bound[0]};
  const std::vector<Value>& affixes = bound[0]->Is(Kind::kTuple) ? bound[0]->items() : one;
  Window window{true, 0, self.text().size()};
  if (bound[1] != nullptr) {
    runtime.budget.SpendBytes(self.text().size());
    SWIFTKV_ASSIGN_OR_RETURN(window, MakeWindow(self.text(), bound[1], bound[2]));
  }
  const std::string_view text = self.text().substr(window.begin, window.end - window.begin);
  for (const Value& affix : affixes) {
    if (!affix.Is(Kind::kString)) {
      return InvalidInput("{} first arg must be str or a tuple of str, not {}", suffix ? "endswith" : "startswith",
                          TypeName(affix));
    }
    SWIFTKV_RETURN_IF_ERROR(runtime.Step(1 + static_cast<int64_t>(affix.text().size() >> 8)));
    if (!window.valid || affix.text().size() > text.size()) continue;
    const size_t at = suffix ? text.size() - affix.text().size() : 0;
    if (text.substr(at, affix.text().size()) == affix.text()) return Value::Bool(true);
  }
  return Value::Bool(false);
}

// The character index of the first or last place, -1 if there is none.
template <bool last>
Result<Int> Search(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "find", {"sub", "start", "end"}, 1));
  SWIFTKV_RETURN_IF_ERROR(NeedString(*bound[0], "find"));
  const std::string_view text = self.text();
  runtime.budget.SpendBytes(text.size());
  SWIFTKV_ASSIGN_OR_RETURN(const Window window, MakeWindow(text, bound[1], bound[2]));
  if (!window.valid) return -1;
  const std::string_view part = text.substr(window.begin, window.end - window.begin);
  const size_t at = last ? FindLast(part, bound[0]->text(), part.size()) : FindFrom(part, bound[0]->text(), 0);
  if (at == std::string_view::npos) return -1;
  return static_cast<Int>(CountChars(text.substr(0, window.begin + at)));
}

template <bool last, bool must_exist>
Result<Value> Find(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Int at, Search<last>(runtime, self, arguments));
  if (must_exist && at < 0) return InvalidInput("substring not found");
  return Value::Integer(at);
}

Result<Value> Count(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "count", {"sub", "start", "end"}, 1));
  SWIFTKV_RETURN_IF_ERROR(NeedString(*bound[0], "count"));
  runtime.budget.SpendBytes(self.text().size());
  SWIFTKV_ASSIGN_OR_RETURN(const Window window, MakeWindow(self.text(), bound[1], bound[2]));
  if (!window.valid) return Value::Integer(0);
  const std::string_view text = self.text().substr(window.begin, window.end - window.begin), part = bound[0]->text();
  if (part.empty()) return Value::Integer(static_cast<Int>(CountChars(text)) + 1);
  int64_t count = 0;
  for (size_t at = FindFrom(text, part, 0); at != std::string_view::npos; at = FindFrom(text, part, at + part.size())) {
    ++count;
  }
  return Value::Integer(count);
}

// ---- Building.

Result<Value> Replace(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "replace", {"old", "new", "count"}, 2));
  for (size_t i = 0; i < 2; ++i) SWIFTKV_RETURN_IF_ERROR(NeedString(*bound[i], "replace"));
  int64_t limit = -1;
  if (bound[2] != nullptr) {
    SWIFTKV_ASSIGN_OR_RETURN(limit, ToIndex(*bound[2]));
  }
  const std::string_view text = self.text(), old = bound[0]->text();
  const std::string with = TextFor(self, *bound[1]);
  runtime.budget.SpendBytes(text.size() + with.size());
  std::string result;
  size_t position = 0;
  for (int64_t count = 0; limit < 0 || count < limit; ++count) {
    size_t at = FindFrom(text, old, position);
    if (at == std::string_view::npos) break;
    size_t length = 0;
    if (old.empty() && count > 0) {  // between any two characters, and at both ends
      if (position >= text.size()) break;
      CharAt(text, position, &length);
      at = position + length;
    }
    if (!runtime.budget.MayGrow(result.size(), at - position + with.size())) return runtime.Exhausted();
    SWIFTKV_RETURN_IF_ERROR(runtime.Step());
    result += text.substr(position, at - position);
    result += with;
    position = at + old.size();
  }
  result += text.substr(position);
  return MakeLike(runtime, self, std::move(result));
}

Result<Value> Join(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "join", {"iterable"}, 1));
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<Value> items, ToVector(runtime, *bound[0]));
  std::string result;
  for (size_t i = 0; i < items.size(); ++i) {
    if (!items[i].Is(Kind::kString) && !self.markup()) {
      return InvalidInput("sequence item {}: expected str instance, {} found", i, TypeName(items[i]));
    }
    const Value text =
        items[i].Is(Kind::kString) ? items[i] : Value::String(&runtime.budget, Str(&runtime.budget, items[i]));
    const std::string part = TextFor(self, text);
    if (!runtime.budget.MayGrow(result.size(), part.size() + self.text().size())) return runtime.Exhausted();
    if (i > 0) result += self.text();
    result += part;
  }
  return MakeLike(runtime, self, std::move(result));
}

enum class Align { kLeft, kRight, kCenter };

template <Align align>
Result<Value> Pad(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "pad", {"width", "fillchar"}, 1));
  SWIFTKV_ASSIGN_OR_RETURN(const int64_t width, ToIndex(*bound[0]));
  runtime.budget.SpendBytes(self.text().size());
  std::string_view fill = " ";
  if (bound[1] != nullptr) {
    if (bound[1]->Is(Kind::kString)) runtime.budget.SpendBytes(bound[1]->text().size());
    if (!bound[1]->Is(Kind::kString) || CountChars(bound[1]->text()) != 1) {
      return InvalidInput("The fill character must be exactly one character long");
    }
    fill = bound[1]->text();
  }
  const auto size = static_cast<int64_t>(CountChars(self.text()));
  if (width <= size) return self;
  const int64_t pad = width - size;
  const int64_t left = align == Align::kLeft ? 0 : align == Align::kRight ? pad : pad / 2 + (pad & width & 1);
  if (pad > runtime.budget.string_bytes / 4 || !runtime.budget.AllowString(static_cast<size_t>(pad) * fill.size())) {
    runtime.budget.Exhaust("output_bytes");
    return runtime.Exhausted();
  }
  std::string result;
  for (int64_t i = 0; i < left; ++i) result += fill;
  result += self.text();
  for (int64_t i = left; i < pad; ++i) result += fill;
  return MakeLike(runtime, self, std::move(result));
}

Result<Value> ZeroFill(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "zfill", {"width"}, 1));
  const Arguments pad{{*bound[0], Value::Text("0")}, {}, {}};
  SWIFTKV_ASSIGN_OR_RETURN(const Value padded, Pad<Align::kRight>(runtime, self, pad));
  const std::string_view text = self.text();
  if (text.empty() || (text[0] != '+' && text[0] != '-')) return padded;
  std::string result(padded.text());
  std::swap(result[0], result[result.size() - text.size()]);
  return MakeLike(runtime, self, std::move(result));
}

Result<Value> ExpandTabs(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "expandtabs", {"tabsize"}, 0));
  int64_t size = 8;
  if (bound[0] != nullptr) {
    SWIFTKV_ASSIGN_OR_RETURN(size, ToIndex(*bound[0]));
  }
  std::string result;
  int64_t column = 0;
  for (size_t i = 0, length; i < self.text().size(); i += length) {
    const char32_t c = CharAt(self.text(), i, &length);
    const int64_t spaces = c == '\t' && size > 0 ? size - column % size : 0;
    if (spaces > runtime.budget.string_bytes || !runtime.budget.MayGrow(result.size(), static_cast<size_t>(spaces))) {
      runtime.budget.Exhaust("output_bytes");
      return runtime.Exhausted();
    }
    if (c == '\t') {
      result.append(static_cast<size_t>(spaces), ' ');
      column += spaces;
    } else {
      result += self.text().substr(i, length);
      column = c == '\n' || c == '\r' ? 0 : column + 1;
    }
  }
  return MakeLike(runtime, self, std::move(result));
}

Result<Value> FormatMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return FormatBraces(runtime, self, arguments);
}

Result<Value> FormatMap(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "format_map", {"mapping"}, 1));
  if (!bound[0]->Is(Kind::kDict)) return InvalidInput("format_map() needs a mapping, not {}", TypeName(*bound[0]));
  SWIFTKV_RETURN_IF_ERROR(runtime.Step(static_cast<int64_t>(bound[0]->dict().size() >> 3)));
  Arguments named;
  for (const auto& [key, value] : bound[0]->dict().entries()) {
    if (key.Is(Kind::kString)) named.keyword.emplace_back(key.text(), value);
  }
  return FormatBraces(runtime, self, named);
}

constexpr NamedBuiltin kStringMethods[] = {
    {"strip", StripMethod<true, true>},
    {"lstrip", StripMethod<true, false>},
    {"rstrip", StripMethod<false, true>},
    {"split", Split},
    {"rsplit", RightSplit},
    {"splitlines", SplitLines},
    {"partition", Partition<false>},
    {"rpartition", Partition<true>},
    {"startswith", HasAffix<false>},
    {"endswith", HasAffix<true>},
    {"removeprefix", RemoveAffix<true>},
    {"removesuffix", RemoveAffix<false>},
    {"replace", Replace},
    {"join", Join},
    {"format", FormatMethod},
    {"format_map", FormatMap},
    {"find", Find<false, false>},
    {"rfind", Find<true, false>},
    {"index", Find<false, true>},
    {"rindex", Find<true, true>},
    {"count", Count},
    {"upper", MapText<ToUpper>},
    {"lower", MapText<ToLower>},
    {"casefold", MapText<CaseFold>},
    {"capitalize", MapText<Capitalize>},
    {"title", MapText<ToTitle>},
    {"swapcase", MapText<SwapCase>},
    {"center", Pad<Align::kCenter>},
    {"ljust", Pad<Align::kLeft>},
    {"rjust", Pad<Align::kRight>},
    {"zfill", ZeroFill},
    {"expandtabs", ExpandTabs},
    {"isspace", AllChars<IsSpace, false>},
    {"isalpha", AllChars<IsAlpha, false>},
    {"isalnum", AllChars<IsAlnum, false>},
    {"isdecimal", AllChars<IsDecimal, false>},
    {"isdigit", AllChars<IsDigit, false>},
    {"isnumeric", AllChars<IsNumeric, false>},
    {"isprintable", AllChars<IsPrintable, true>},
    {"isascii", AllChars<IsAsciiChar, true>},
    {"islower", OneCase<IsLower, IsUpper>},
    {"isupper", OneCase<IsUpper, IsLower>},
    {"istitle", IsTitleCased},
    {"isidentifier", IsIdentifier},
};

}  // namespace

Builtin FindStringMethod(std::string_view name) {
  return FindIn(std::begin(kStringMethods), std::end(kStringMethods), name);
}

}  // namespace swiftkv::jinja
