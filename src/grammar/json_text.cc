#include "grammar/json_text.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace swiftkv {
namespace {

constexpr int kMaxDigits = 15;         // of a whole number, and of a fraction: doubles keep them all
constexpr int kMaxExponentDigits = 2;  // no reader finds the number out of range

bool NeedsEscape(char byte) { return static_cast<uint8_t>(byte) < 0x20 || byte == '"' || byte == '\\'; }

bool All(std::string_view text, char byte) { return text.find_first_not_of(byte) == std::string_view::npos; }

// Sorted texts as a tree: calls `edge(from, byte)`, which returns the new state, and `end(state, text)`.
template <class Edge, class End>
void ForTree(const std::set<std::string>& texts, int32_t root, const Edge& edge, const End& end) {
  std::vector<int32_t> path = {root};
  std::string_view previous;
  for (const std::string& text : texts) {
    const auto [split, rest] = std::mismatch(previous.begin(), previous.end(), text.begin(), text.end());
    path.resize(static_cast<size_t>(split - previous.begin()) + 1);
    for (size_t i = path.size() - 1; i < text.size(); ++i) path.push_back(edge(path.back(), text[i]));
    end(path.back(), text);
    previous = text;
  }
}

}  // namespace

ByteSet JsonText::Follows() {
  ByteSet follows;
  for (const char byte : {',', ':', ']', '}'}) follows.set(static_cast<size_t>(byte));
  return follows;
}

// One character that needs no escape, as UTF-8; `excluded_first`: bytes that it must not begin with.
void JsonText::Character(int32_t from, const ByteSet& excluded_first, int32_t to) {
  const auto first = [&](int low, int high, int32_t next) {
    for (int byte = low; byte <= high; ++byte) {
      int end = byte;
      while (end <= high && !excluded_first[static_cast<size_t>(end)]) ++end;
      if (end > byte) builder_.Bytes(from, static_cast<uint8_t>(byte), static_cast<uint8_t>(end - 1), next);
      byte = end;
    }
  };
  const auto before = [&](uint8_t low, uint8_t high, int32_t next) {
    const int32_t state = builder_.NewState();
    builder_.Bytes(state, low, high, next);
    return state;
  };
  const int32_t last = before(0x80, 0xBF, to);
  const int32_t last_two = before(0x80, 0xBF, last);
  const int32_t last_three = before(0x80, 0xBF, last_two);
  first(0x20, '"' - 1, to);
  first('"' + 1, '\\' - 1, to);
  first('\\' + 1, 0x7F, to);
  first(0xC2, 0xDF, last);
  first(0xE0, 0xE0, before(0xA0, 0xBF, last));
  first(0xE1, 0xEC, last_two);
  first(0xED, 0xED, before(0x80, 0x9F, last));  // no surrogates
  first(0xEE, 0xEF, last_two);
  first(0xF0, 0xF0, before(0x90, 0xBF, last_two));
  first(0xF1, 0xF3, last_three);
  first(0xF4, 0xF4, before(0x80, 0x8F, last_two));
}

// `unicode`: \uXXXX too, where a high surrogate is followed by a low one.
void JsonText::Escape(int32_t from, bool unicode, int32_t to) {
  const int32_t escape = builder_.NewState();
  builder_.Byte(from, '\\', escape);
  builder_.Bytes(escape, "\"\\/bfnrt", to);
  if (!unicode) return;
  constexpr std::string_view kHex = "0123456789abcdefABCDEF";
  const auto hex_before = [&](int32_t next) {
    const int32_t state = builder_.NewState();
    builder_.Bytes(state, kHex, next);
    return state;
  };
  const int32_t last_two = hex_before(hex_before(to));
  const int32_t code = builder_.NewState();
  const int32_t after_d = builder_.NewState();
  const int32_t low_half = builder_.NewState();
  const int32_t low_second = builder_.NewState();
  builder_.Byte(escape, 'u', code);
  builder_.Bytes(code, "0123456789abcefABCEF", hex_before(last_two));
  builder_.Bytes(code, "dD", after_d);
  builder_.Bytes(after_d, "01234567", last_two);
  builder_.Bytes(after_d, "89abAB", hex_before(hex_before(low_half)));
  builder_.Bytes(builder_.Literal(low_half, "\\u"), "dD", low_second);
  builder_.Bytes(low_second, "cdefCDEF", last_two);
}

// Characters and the closing quote.
void JsonText::FreeString(int32_t from, int32_t to) {
  Character(from, {}, from);
  Escape(from, /*unicode=*/true, from);
  builder_.Byte(from, '"', to);
}

void JsonText::String(int32_t from, const StringLength& length, int32_t to) {
  if (length.min == 0 && !length.max) {
    if (!string_) {
      string_ = builder_.NewRule();
      FreeString(builder_.Literal(string_->start, "\""), string_->end);
    }
    builder_.Call(from, *string_, to);
    return;
  }
  const auto reach = static_cast<int64_t>(longest_token_);
  const int64_t counted = length.max.value_or(length.min);
  std::optional<int32_t> far_from_min;
  std::optional<int32_t> far_from_max;
  int32_t state = builder_.Literal(from, "\"");
  for (int64_t i = 0; i < counted && !builder_.full(); ++i) {
    std::optional<int32_t>* alike = nullptr;
    if (i + reach < length.min) alike = &far_from_min;
    if (i >= length.min && i + reach < counted) alike = &far_from_max;
    if (alike != nullptr) builder_.SetMaskClass(state, alike->emplace(alike->value_or(state)));
    const int32_t next = builder_.NewState();
    Character(state, {}, next);
    Escape(state, /*unicode=*/false, next);
    if (i >= length.min) builder_.Byte(state, '"', to);
    state = next;
  }
  if (length.max) {
    builder_.Byte(state, '"', to);
  } else {
    FreeString(state, to);
  }
}

void JsonText::OtherString(int32_t from, const std::set<std::string>& others, int32_t to) {
  std::set<std::string> plain;  // the others could not be written without escapes
  for (const std::string& other : others) {
    if (std::none_of(other.begin(), other.end(), NeedsEscape)) plain.insert(other);
  }
  struct Node {
    int32_t state = 0;
    ByteSet children = {};
    bool inside_character = false;
    bool is_other = false;
  };
  std::vector<Node> nodes = {{.state = builder_.Literal(from, "\"")}};
  int32_t count = 0;
  ForTree(
      plain, count,
      [&](int32_t parent, char byte) {
        Node& node = nodes[static_cast<size_t>(parent)];
        node.children.set(static_cast<uint8_t>(byte));
        const int32_t state = builder_.NewState();
        builder_.Byte(node.state, byte, state);
        nodes.push_back({.state = state});
        return ++count;
      },
      [&](int32_t node, const std::string& /*text*/) { nodes[static_cast<size_t>(node)].is_other = true; });

  const int32_t free = builder_.NewState();
  Character(free, {}, free);
  builder_.Byte(free, '"', to);
  for (Node& node : nodes) {
    // Children that continue a character begin with 10xxxxxx.
    for (size_t byte = 0x80; byte < 0xC0; ++byte) node.inside_character |= node.children[byte];
    if (node.inside_character) continue;
    Character(node.state, node.children, free);
    if (!node.is_other) builder_.Byte(node.state, '"', to);
  }
}

// 1 to `count` digits up to `highest`, the first at least `lowest_first`.
void JsonText::DigitRun(int32_t from, char lowest_first, char highest, int count, int32_t to) {
  int32_t state = builder_.NewState();
  builder_.Bytes(from, static_cast<uint8_t>(lowest_first), static_cast<uint8_t>(highest), state);
  for (int i = 1; i < count; ++i) {
    builder_.Skip(state, to);
    const int32_t next = builder_.NewState();
    builder_.Bytes(state, '0', static_cast<uint8_t>(highest), next);
    state = next;
  }
  builder_.Skip(state, to);
}

// Digits behind the point, not all of them zeros.
void JsonText::NonzeroFraction(int32_t from, int32_t to) {
  int32_t zeros = from;
  int32_t nonzero = -1;  // there is no digit yet
  for (int i = 0; i < kMaxDigits; ++i) {
    const int32_t next_nonzero = builder_.NewState();
    builder_.Bytes(zeros, '1', '9', next_nonzero);
    if (i > 0) builder_.Bytes(nonzero, '0', '9', next_nonzero);
    builder_.Skip(next_nonzero, to);
    nonzero = next_nonzero;
    if (i + 1 == kMaxDigits) break;
    const int32_t next_zeros = builder_.NewState();
    builder_.Byte(zeros, '0', next_zeros);
    zeros = next_zeros;
  }
}

// As many digits as `low` and `high` have, from one to the other.
void JsonText::DigitsBetween(int32_t from, std::string_view low, std::string_view high, int32_t to) {
  if (low.empty()) return builder_.Skip(from, to);
  const auto on = [&](char first, char last, std::string_view rest_low, std::string_view rest_high) {
    if (first > last) return;
    const int32_t next = builder_.NewState();
    builder_.Bytes(from, static_cast<uint8_t>(first), static_cast<uint8_t>(last), next);
    DigitsBetween(next, rest_low, rest_high, to);
  };
  const std::string_view rest_low = low.substr(1);
  const std::string_view rest_high = high.substr(1);
  const bool any_rest = All(rest_low, '0') && All(rest_high, '9');
  if (low[0] == high[0] || any_rest) return on(low[0], high[0], rest_low, rest_high);
  const std::string zeros(rest_low.size(), '0');
  const std::string nines(rest_low.size(), '9');
  on(low[0], low[0], rest_low, nines);
  on(static_cast<char>(low[0] + 1), static_cast<char>(high[0] - 1), zeros, nines);
  on(high[0], high[0], zeros, rest_high);
}

// 0 <= low <= high.
void JsonText::Whole(int32_t from, int64_t low, int64_t high, int32_t to) {
  if (low > high) return;
  if (low == 0) builder_.Byte(from, '0', to);
  int64_t power = 1;  // the least number of as many digits
  for (int digits = 1; digits <= kMaxDigits; ++digits, power *= 10) {
    const int64_t least = std::max(low, power);
    const int64_t most = std::min(high, power * 10 - 1);
    if (least <= most) DigitsBetween(from, std::to_string(least), std::to_string(most), to);
  }
}

void JsonText::PlainNumber(int32_t from, bool integer, int32_t to) {
  const int32_t sign = builder_.NewState();
  const int32_t whole = builder_.NewState();
  builder_.Byte(from, '-', sign);
  builder_.Skip(from, sign);
  builder_.Byte(sign, '0', whole);
  DigitRun(sign, '1', '9', kMaxDigits, whole);
  builder_.Skip(whole, to);
  if (integer) return;
  const int32_t point = builder_.NewState();
  const int32_t fraction = builder_.NewState();
  const int32_t exponent = builder_.NewState();
  const int32_t exponent_sign = builder_.NewState();
  builder_.Byte(whole, '.', point);
  DigitRun(point, '0', '9', kMaxDigits, fraction);
  builder_.Skip(fraction, to);
  builder_.Bytes(whole, "eE", exponent);
  builder_.Bytes(fraction, "eE", exponent);
  builder_.Bytes(exponent, "+-", exponent_sign);
  builder_.Skip(exponent, exponent_sign);
  DigitRun(exponent_sign, '0', '9', kMaxExponentDigits, to);
}

void JsonText::Integer(int32_t from, NumberRange range, int32_t to) {
  if (!range.low && !range.high) return PlainNumber(from, /*integer=*/true, to);
  const int64_t low = range.low.value_or(-kMaxJsonNumber) + (range.low_excluded ? 1 : 0);
  const int64_t high = range.high.value_or(kMaxJsonNumber) - (range.high_excluded ? 1 : 0);
  Whole(from, std::max<int64_t>(low, 0), high, to);
  if (low >= 0) return;
  const int32_t minus = builder_.Literal(from, "-");
  Whole(minus, std::max<int64_t>(-high, 1), -low, to);
}

// A number without sign and exponent; both bounds are given and not negative.
void JsonText::Magnitude(int32_t from, const NumberRange& range, int32_t to) {
  const int64_t low = *range.low;
  const int64_t high = *range.high;
  const int64_t least = low + (range.low_excluded ? 1 : 0);
  const int32_t inside = builder_.NewState();
  Whole(from, least, high - 1, inside);
  builder_.Skip(inside, to);
  DigitRun(builder_.Literal(inside, "."), '0', '9', kMaxDigits, to);
  if (!range.high_excluded && high >= least) {
    const int32_t top = builder_.NewState();
    Whole(from, high, high, top);
    builder_.Skip(top, to);
    DigitRun(builder_.Literal(top, "."), '0', '0', kMaxDigits, to);
  }
  if (range.low_excluded && low < high) {
    const int32_t bottom = builder_.NewState();
    Whole(from, low, low, bottom);
    NonzeroFraction(builder_.Literal(bottom, "."), to);
  }
}

void JsonText::Number(int32_t from, const NumberRange& range, int32_t to) {
  if (!range.low && !range.high) return PlainNumber(from, /*integer=*/false, to);
  const int64_t low = range.low.value_or(-kMaxJsonNumber);
  const int64_t high = range.high.value_or(kMaxJsonNumber);
  if (high >= 0) {
    Magnitude(from,
              {.low = std::max<int64_t>(low, 0),
               .high = high,
               .low_excluded = range.low_excluded && low >= 0,
               .high_excluded = range.high_excluded},
              to);
  }
  if (low < 0) {
    Magnitude(builder_.Literal(from, "-"),
              {.low = std::max<int64_t>(-high, 0),
               .high = -low,
               .low_excluded = range.high_excluded && high <= 0,
               .high_excluded = range.low_excluded},
              to);
  }
}

void JsonText::Texts(int32_t from, const std::set<std::string>& texts, int32_t to) {
  ForTree(
      texts, from,
      [&](int32_t parent, char byte) {
        const int32_t state = builder_.NewState();
        builder_.Byte(parent, byte, state);
        return state;
      },
      [&](int32_t state, const std::string& /*text*/) { builder_.Skip(state, to); });
}

int32_t JsonText::Separator(int32_t from, char separator) {
  const int32_t before = builder_.NewState();
  const int32_t behind = builder_.NewState();
  builder_.Byte(from, separator, before);
  builder_.Byte(before, ' ', behind);
  builder_.Skip(before, behind);
  return behind;
}

Rule JsonText::Object() {
  if (object_) return *object_;
  object_ = builder_.NewRule();
  const int32_t open = builder_.Literal(object_->start, "{");
  const int32_t member = builder_.NewState();
  const int32_t name_end = builder_.NewState();
  const int32_t member_end = builder_.NewState();
  builder_.Byte(open, '}', object_->end);
  builder_.Skip(open, member);
  String(member, {}, name_end);
  builder_.Call(Separator(name_end, ':'), Value(), member_end);
  builder_.Byte(member_end, '}', object_->end);
  builder_.Skip(Separator(member_end, ','), member);
  return *object_;
}

Rule JsonText::Value() {
  if (value_) return *value_;
  value_ = builder_.NewRule();
  const auto [start, end] = *value_;
  Texts(start, {"true", "false", "null"}, end);
  String(start, {}, end);
  Number(start, {}, end);
  builder_.Call(start, Object(), end);
  const int32_t open = builder_.Literal(start, "[");
  const int32_t item = builder_.NewState();
  const int32_t item_end = builder_.NewState();
  builder_.Byte(open, ']', end);
  builder_.Skip(open, item);
  builder_.Call(item, *value_, item_end);
  builder_.Byte(item_end, ']', end);
  builder_.Skip(Separator(item_end, ','), item);
  return *value_;
}

}  // namespace swiftkv
