#include "text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "text/unicode.h"

namespace swiftkv {
namespace {

class UnicodeNormalizer : public Normalizer {
 public:
  explicit UnicodeNormalizer(NormalizationForm form) : form_(form) {}

  // Characters that are too young for `tokenizers` stand for themselves and bind nothing across them.
  void Normalize(std::string& text) const override {
    if (IsUnchanged(text)) return;
    std::string out;
    out.reserve(text.size());
    size_t done = 0;
    for (size_t at = 0; at < text.size();) {
      const size_t begin = at;
      if (!PropertiesOf(NextCodePoint(text, at)).IsNormalizationBarrier()) continue;
      AppendNormalized(std::string_view(text).substr(done, begin - done), out);
      out.append(text, begin, at - begin);
      done = at;
    }
    AppendNormalized(std::string_view(text).substr(done), out);
    text = std::move(out);
  }

 private:
  // Nothing below U+0300 (lead byte 0xcc) composes; ASCII has no other form at all.
  bool IsUnchanged(const std::string& text) const {
    const unsigned char limit = form_ == NormalizationForm::kNfc ? 0xcc : 0x80;
    return std::all_of(text.begin(), text.end(),
                       [limit](char byte) { return static_cast<unsigned char>(byte) < limit; });
  }

  // As utf8proc_map does, but in linear time: its ordering of combining marks is quadratic.
  void AppendNormalized(std::string_view text, std::string& out) const {
    const bool compose = form_ == NormalizationForm::kNfc || form_ == NormalizationForm::kNfkc;
    const bool compatible = form_ == NormalizationForm::kNfkc || form_ == NormalizationForm::kNfkd;
    const int decompose = UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0);
    std::vector<utf8proc_int32_t> chars;
    chars.reserve(text.size());
    for (size_t at = 0; at < text.size();) {
      utf8proc_int32_t parts[32];  // the longest decomposition has 18
      const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(NextCodePoint(text, at)), parts, 32,
                                                 static_cast<utf8proc_option_t>(decompose), nullptr);
      chars.insert(chars.end(), parts, parts + std::clamp<utf8proc_ssize_t>(count, 0, 32));
    }
    SortMarks(chars);
    auto size = static_cast<utf8proc_ssize_t>(chars.size());
    if (compose) {
      size = utf8proc_normalize_utf32(chars.data(), size,
                                      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    }
    for (utf8proc_ssize_t i = 0; i < size; ++i) AppendUtf8(static_cast<char32_t>(chars[i]), out);
  }

  // Unicode's canonical ordering: each run of combining marks by their classes.
  static void SortMarks(std::vector<utf8proc_int32_t>& chars) {
    const auto mark_class = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
    for (auto begin = chars.begin(); begin != chars.end();) {
      const auto end = std::find_if(begin, chars.end(), [&](utf8proc_int32_t c) { return mark_class(c) == 0; });
      std::stable_sort(begin, end,
                       [&](utf8proc_int32_t a, utf8proc_int32_t b) { return mark_class(a) < mark_class(b); });
      begin = end == chars.end() ? end : end + 1;
    }
  }

  NormalizationForm form_;
};

class Lowercase : public Normalizer {
 public:
  void Normalize(std::string& text) const override {
    std::string out;
    out.reserve(text.size());
    for (size_t at = 0; at < text.size();) {
      const char32_t c = NextCodePoint(text, at);
      if (c == 0x130) {  // İ: the one letter whose lower case is two characters
        out.append("i\u0307");
      } else {
        AppendUtf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))), out);
      }
    }
    text = std::move(out);
  }
};

class Strip : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  void Normalize(std::string& text) const override {
    size_t begin = text.size();  // of the first character that is not space
    size_t end = 0;              // behind the last one
    for (size_t at = 0; at < text.size();) {
      const size_t start = at;
      if (PropertiesOf(NextCodePoint(text, at)).IsSpace()) continue;
      begin = std::min(begin, start);
      end = at;
    }
    if (!left_) begin = 0;
    if (!right_) end = text.size();
    text = begin < end ? text.substr(begin, end - begin) : std::string();
  }

 private:
  bool left_;
  bool right_;
};

class Prepend : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  void Normalize(std::string& text) const override {
    if (!text.empty()) text.insert(0, prefix_);
  }
  bool KeepsLength() const override { return true; }

 private:
  std::string prefix_;
};

class Replace : public Normalizer {
 public:
  Replace(Pattern pattern, std::string content) : pattern_(std::move(pattern)), content_(std::move(content)) {}
  void Normalize(std::string& text) const override { pattern_.ReplaceAll(text, content_); }
  bool KeepsLength() const override {
    return !pattern_.literal().empty() && pattern_.literal().size() <= content_.size();
  }

 private:
  Pattern pattern_;
  std::string content_;
};

class ByteLevelNormalizer : public Normalizer {
 public:
  void Normalize(std::string& text) const override {
    std::string out;
    out.reserve(text.size() * 2);
    for (const char byte : text) AppendUtf8(ByteLevelChar(static_cast<uint8_t>(byte)), out);
    text = std::move(out);
  }
  bool KeepsLength() const override { return true; }
};

}  // namespace

std::unique_ptr<Normalizer> MakeUnicodeNormalizer(NormalizationForm form) {
  return std::make_unique<UnicodeNormalizer>(form);
}
std::unique_ptr<Normalizer> MakeLowercase() { return std::make_unique<Lowercase>(); }
std::unique_ptr<Normalizer> MakeStrip(bool left, bool right) { return std::make_unique<Strip>(left, right); }
std::unique_ptr<Normalizer> MakePrepend(std::string prefix) { return std::make_unique<Prepend>(std::move(prefix)); }
std::unique_ptr<Normalizer> MakeReplace(Pattern pattern, std::string content) {
  return std::make_unique<Replace>(std::move(pattern), std::move(content));
}
std::unique_ptr<Normalizer> MakeByteLevelNormalizer() { return std::make_unique<ByteLevelNormalizer>(); }

}  // namespace swiftkv
