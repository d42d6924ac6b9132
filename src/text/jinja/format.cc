#include "text/jinja/format.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "text/jinja/unicode.h"
#include "text/unicode.h"

namespace swiftkv::jinja {
namespace {

// False once `out` or the work on it is too much.
bool MayAppend(Budget* budget, const std::string& out) {
  if (out.size() > static_cast<uint64_t>(budget->string_bytes)) budget->Exhaust("output_bytes");
  return budget->Spend(1);
}

// Counts containers that are being printed, one within the other. Their own nesting does not do, because a
// namespace can come to hold anything.
class PrintingGuard {
 public:
  explicit PrintingGuard(Budget* budget) : budget_(budget) {
    if (++budget_->printing > budget_->nesting) budget_->Exhaust("depth");
  }
  ~PrintingGuard() { --budget_->printing; }
  PrintingGuard(const PrintingGuard&) = delete;
  PrintingGuard& operator=(const PrintingGuard&) = delete;

 private:
  Budget* budget_;
};

template <class Items, class Append>
void AppendSeparated(Budget* budget, std::string* out, const Items& items, const Append& append) {
  const PrintingGuard guard(budget);
  bool first = true;
  for (const auto& item : items) {
    if (!MayAppend(budget, *out)) return;
    if (!first) *out += ", ";
    first = false;
    append(item);
  }
}

void AppendItems(Budget* budget, std::string* out, const std::vector<Value>& items) {
  AppendSeparated(budget, out, items, [&](const Value& item) { AppendRepr(budget, out, item); });
}

void AppendDict(Budget* budget, std::string* out, const Dict& dict) {
  *out += '{';
  AppendSeparated(budget, out, dict.entries(), [&](const Dict::Entry& entry) {
    AppendRepr(budget, out, entry.first);
    *out += ": ";
    AppendRepr(budget, out, entry.second);
  });
  *out += '}';
}

void AppendView(Budget* budget, std::string* out, const Value& value) {
  const PrintingGuard guard(budget);
  const DictViewObject& view = value.view();
  *out += TypeName(value);
  *out += "([";
  for (size_t i = 0; i < view.dict.dict().size(); ++i) {
    if (!MayAppend(budget, *out)) return;
    if (i > 0) *out += ", ";
    AppendRepr(budget, out, view.At(i));
  }
  *out += "])";
}

void AppendRange(std::string* out, const RangeObject& range) {
  *out += "range(" + IntText(range.start) + ", " + IntText(range.stop);
  if (range.step != 1) *out += ", " + IntText(range.step);
  *out += ')';
}

void AppendNamespace(Budget* budget, std::string* out, NamespaceObject& space) {
  *out += "<Namespace ";
  if (space.printing) {
    *out += "{...}";
  } else {
    space.printing = true;
    AppendDict(budget, out, space.attributes);
    space.printing = false;
  }
  *out += '>';
}

void AppendHex(std::string* out, uint32_t value, int digits) {
  for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4) out->push_back("0123456789abcdef"[value >> shift & 15]);
}

void AppendEscapedChar(std::string* out, char32_t c) {
  if (c == '\n') {
    *out += "\\n";
  } else if (c == '\r') {
    *out += "\\r";
  } else if (c == '\t') {
    *out += "\\t";
  } else if (c < 0x100) {
    *out += "\\x";
    AppendHex(out, c, 2);
  } else if (c < 0x10000) {
    *out += "\\u";
    AppendHex(out, c, 4);
  } else {
    *out += "\\U";
    AppendHex(out, c, 8);
  }
}

class JsonWriter {
 public:
  JsonWriter(Budget* budget, std::string* out, const JsonOptions& options)
      : budget_(budget), out_(out), options_(options) {}

  Status Write(const Value& value) {
    if (!MayAppend(budget_, *out_)) return Ok();
    switch (value.kind()) {
      case Kind::kNone:
        *out_ += "null";
        return Ok();
      case Kind::kBool:
        *out_ += value.boolean() ? "true" : "false";
        return Ok();
      case Kind::kInt:
        *out_ += IntText(value.integer());
        return Ok();
      case Kind::kFloat:
        *out_ += Number(value.real());
        return Ok();
      case Kind::kString:
        budget_->AllowString(value.text().size());
        WriteString(value.text());
        return Ok();
      case Kind::kList:
      case Kind::kTuple:
        return WriteList(value.items());
      case Kind::kDict:
        return WriteDict(value.dict());
      default:
        return InvalidInput("Object of type {} is not JSON serializable", TypeName(value));
    }
  }

 private:
  static std::string Number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
    return FloatText(value);
  }

  void WriteUnicodeEscape(char32_t c) {
    if (c >= 0x10000) {
      WriteUnicodeEscape(0xd7c0 + (c >> 10));
      c = 0xdc00 + (c & 0x3ff);
    }
    *out_ += "\\u";
    AppendHex(out_, c, 4);
  }

  void WriteString(std::string_view text) {
    *out_ += '"';
    for (size_t i = 0, length; i < text.size(); i += length) {
      const auto byte = static_cast<unsigned char>(text[i]);
      length = 1;
      if (byte == '"' || byte == '\\') {
        *out_ += '\\';
        *out_ += text[i];
      } else if (byte >= 0x20 && byte < 0x80) {
        *out_ += text[i];
      } else if (byte < 0x20) {
        WriteControl(byte);
      } else {
        const char32_t c = CharAt(text, i, &length);
        if (options_.ensure_ascii) {
          WriteUnicodeEscape(c);
        } else {
          AppendUtf8(c, *out_);
        }
      }
    }
    *out_ += '"';
  }

  void WriteControl(unsigned char byte) {
    constexpr std::string_view kShort = "btn\0fr";  // 0x08 to 0x0d
    if (byte >= 8 && byte <= 13 && byte != 11) {
      *out_ += '\\';
      *out_ += kShort[byte - 8u];
    } else {
      WriteUnicodeEscape(byte);
    }
  }

  void NewLine() {
    if (!options_.indent) return;
    *out_ += '\n';
    for (int i = 0; i < level_ && out_->size() <= static_cast<uint64_t>(budget_->string_bytes); ++i) {
      *out_ += *options_.indent;
    }
  }

  Status WriteList(const std::vector<Value>& items) {
    if (items.empty()) {
      *out_ += "[]";
      return Ok();
    }
    *out_ += '[';
    ++level_;
    for (size_t i = 0; i < items.size() && MayAppend(budget_, *out_); ++i) {
      if (i > 0) *out_ += options_.item_separator;
      NewLine();
      SWIFTKV_RETURN_IF_ERROR(Write(items[i]));
    }
    --level_;
    NewLine();
    *out_ += ']';
    return Ok();
  }

  Result<std::string> Key(const Value& key) {
    switch (key.kind()) {
      case Kind::kString:
        return std::string(key.text());
      case Kind::kNone:
        return std::string("null");
      case Kind::kBool:
        return std::string(key.boolean() ? "true" : "false");
      case Kind::kInt:
        return IntText(key.integer());
      case Kind::kFloat:
        return Number(key.real());
      default:
        return InvalidInput("keys must be str, int, float, bool or None, not {}", TypeName(key));
    }
  }

  Result<std::vector<Dict::Entry>> Sorted(const Dict& dict) {
    std::vector<Dict::Entry> entries = dict.entries();
    for (const auto& [key, value] : entries) {
      if (key.Is(Kind::kString) == entries[0].first.Is(Kind::kString) && (key.Is(Kind::kString) || key.IsNumber())) {
        continue;
      }
      return InvalidInput("'<' not supported between instances of '{}' and '{}'", TypeName(key),
                          TypeName(entries[0].first));
    }
    std::stable_sort(entries.begin(), entries.end(), [](const Dict::Entry& a, const Dict::Entry& b) {
      return a.first.Is(Kind::kString) ? a.first.text() < b.first.text() : a.first.number() < b.first.number();
    });
    return entries;
  }

  Status WriteDict(const Dict& dict) {
    if (dict.size() == 0) {
      *out_ += "{}";
      return Ok();
    }
    std::vector<Dict::Entry> sorted;
    if (options_.sort_keys) {
      SWIFTKV_ASSIGN_OR_RETURN(sorted, Sorted(dict));
    }
    *out_ += '{';
    ++level_;
    bool first = true;
    for (const auto& [key, value] : options_.sort_keys ? sorted : dict.entries()) {
      if (!MayAppend(budget_, *out_)) break;
      if (!first) *out_ += options_.item_separator;
      first = false;
      NewLine();
      SWIFTKV_ASSIGN_OR_RETURN(const std::string name, Key(key));
      WriteString(name);
      *out_ += options_.key_separator;
      SWIFTKV_RETURN_IF_ERROR(Write(value));
    }
    --level_;
    NewLine();
    *out_ += '}';
    return Ok();
  }

  Budget* budget_;
  std::string* out_;
  const JsonOptions& options_;
  int level_ = 0;
};

}  // namespace

std::string IntText(Int value) {
  char digits[40];
  size_t count = 0;
  auto rest = value < 0 ? -static_cast<unsigned __int128>(value) : static_cast<unsigned __int128>(value);
  do {
    digits[count++] = static_cast<char>('0' + static_cast<int>(rest % 10));
    rest /= 10;
  } while (rest != 0);
  if (value < 0) digits[count++] = '-';
  std::reverse(digits, digits + count);
  return std::string(digits, count);
}

std::string FloatText(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific).ptr;
  const std::string_view shortest(buffer, static_cast<size_t>(end - buffer));
  const size_t e = shortest.find('e');
  const int exponent = std::atoi(std::string(shortest.substr(e + 1)).c_str());
  std::string digits;
  for (const char c : shortest.substr(0, e)) {
    if (c >= '0' && c <= '9') digits += c;
  }
  std::string result = std::signbit(value) ? "-" : "";
  if (exponent < -4 || exponent >= 16) {
    result += digits[0];
    if (digits.size() > 1) result += '.' + digits.substr(1);
    result += exponent < 0 ? "e-" : "e+";
    if (std::abs(exponent) < 10) result += '0';
    return result + std::to_string(std::abs(exponent));
  }
  if (exponent < 0) return result + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  const size_t whole = static_cast<size_t>(exponent) + 1;
  if (digits.size() <= whole) return result + digits + std::string(whole - digits.size(), '0') + ".0";
  return result + digits.substr(0, whole) + '.' + digits.substr(whole);
}

void AppendStringRepr(std::string* out, std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  *out += quote;
  for (size_t i = 0, length; i < text.size(); i += length) {
    const char32_t c = CharAt(text, i, &length);
    if (c == static_cast<unsigned char>(quote) || c == '\\') {
      *out += '\\';
      *out += static_cast<char>(c);
    } else if (c >= 0x20 && c < 0x7f) {
      *out += static_cast<char>(c);
    } else if (c >= 0xa0 && IsPrintable(c)) {
      AppendUtf8(c, *out);
    } else {
      AppendEscapedChar(out, c);
    }
  }
  *out += quote;
}

void AppendRepr(Budget* budget, std::string* out, const Value& value) {
  switch (value.kind()) {
    case Kind::kMissing:
    case Kind::kUndefined:
      *out += "Undefined";
      return;
    case Kind::kNone:
      *out += "None";
      return;
    case Kind::kBool:
      *out += value.boolean() ? "True" : "False";
      return;
    case Kind::kInt:
      *out += IntText(value.integer());
      return;
    case Kind::kFloat:
      *out += FloatText(value.real());
      return;
    case Kind::kString:
      budget->AllowString(value.text().size());
      if (value.markup()) *out += "Markup(";
      AppendStringRepr(out, value.text());
      if (value.markup()) *out += ')';
      return;
    case Kind::kList:
      *out += '[';
      AppendItems(budget, out, value.items());
      *out += ']';
      return;
    case Kind::kTuple:
      *out += '(';
      AppendItems(budget, out, value.items());
      *out += value.items().size() == 1 ? ",)" : ")";
      return;
    case Kind::kDict:
      return AppendDict(budget, out, value.dict());
    case Kind::kDictView:
      return AppendView(budget, out, value);
    case Kind::kRange:
      return AppendRange(out, value.range());
    case Kind::kGenerator:
      *out += "<generator object>";
      return;
    case Kind::kNamespace:
      return AppendNamespace(budget, out, value.name_space());
    case Kind::kFunction:
      *out += value.function().Repr();
      return;
  }
}

void AppendStr(Budget* budget, std::string* out, const Value& value) {
  if (value.Is(Kind::kString)) {
    budget->SpendBytes(value.text().size());
    *out += value.text();
  } else if (!value.Is(Kind::kUndefined)) {
    AppendRepr(budget, out, value);
  }
}

std::string Str(Budget* budget, const Value& value) {
  std::string out;
  AppendStr(budget, &out, value);
  return out;
}

std::string Repr(Budget* budget, const Value& value) {
  std::string out;
  AppendRepr(budget, &out, value);
  return out;
}

Status AppendJson(Budget* budget, std::string* out, const Value& value, const JsonOptions& options) {
  return JsonWriter(budget, out, options).Write(value);
}

}  // namespace swiftkv::jinja
