#include "text/decoder.h"

#include <utility>

#include "text/unicode.h"

namespace swiftkv {
namespace {

constexpr std::string_view kReplacementChar = "\ufffd";

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// The end of a chain.
class Output : public DecodeStage {
 public:
  explicit Output(std::string& text) : text_(text) {}
  void Push(std::string_view text, bool) override { text_.append(text); }
  void Finish() override {}

 private:
  std::string& text_;
};

class ByteLevelDecoder : public DecodeStage {
 public:
  void Push(std::string_view text, bool) override {
    bytes_.append(ByteLevelBytes(text));
    Emit(/*keep_unfinished=*/true);
  }
  void Finish() override {
    Emit(/*keep_unfinished=*/false);
    next_->Finish();
  }

 private:
  void Emit(bool keep_unfinished) {
    std::string text;
    bytes_.erase(0, AppendLossy(bytes_, keep_unfinished, text));
    if (!text.empty()) next_->Push(text, std::exchange(started_, true));
  }

  std::string bytes_;  // the beginning of a character
  bool started_ = false;
};

class ByteFallbackDecoder : public DecodeStage {
 public:
  void Push(std::string_view text, bool continues) override {
    if (const int byte = ByteFallbackByte(text); byte >= 0) {
      bytes_.push_back(static_cast<char>(byte));
      return;
    }
    Flush();
    next_->Push(text, continues);
  }
  void Finish() override {
    Flush();
    next_->Finish();
  }

 private:
  void Flush() {
    if (bytes_.empty()) return;
    if (IsValidUtf8(bytes_)) {
      next_->Push(bytes_, false);
    } else {
      for (size_t i = 0; i < bytes_.size(); ++i) next_->Push(kReplacementChar, false);
    }
    bytes_.clear();
  }

  std::string bytes_;  // the run so far: any byte token that follows may make it invalid as a whole
};

class FuseDecoder : public DecodeStage {
 public:
  void Push(std::string_view text, bool) override { next_->Push(text, std::exchange(started_, true)); }
  void Finish() override { next_->Finish(); }

 private:
  bool started_ = false;
};

class StripDecoder : public DecodeStage {
 public:
  StripDecoder(char32_t content, size_t start, size_t stop) : start_(start), stop_(stop) {
    AppendUtf8(content, content_);
  }
  void Push(std::string_view text, bool continues) override {
    if (!continues) {
      leading_ = start_;
      trailing_ = 0;
    }
    std::string out;
    for (size_t at = 0; at < text.size();) {
      const std::string_view character = text.substr(at, Utf8Length(text[at]));
      at += character.size();
      if (character != content_) {
        leading_ = 0;
        for (; trailing_ > 0; --trailing_) out.append(content_);
        out.append(character);
      } else if (leading_ > 0) {
        --leading_;
      } else if (trailing_ < stop_) {
        ++trailing_;
      } else {
        out.append(content_);
      }
    }
    next_->Push(out, continues);
  }
  void Finish() override { next_->Finish(); }

 private:
  std::string content_;
  size_t start_;
  size_t stop_;
  size_t leading_ = 0;   // characters that may still be stripped from the token's start
  size_t trailing_ = 0;  // characters held back: stripped if the token ends here
};

class ReplaceDecoder : public DecodeStage {
 public:
  ReplaceDecoder(std::shared_ptr<const Pattern> pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {
    const std::string& literal = pattern_->literal();
    by_character_ = !literal.empty() && literal.size() == Utf8Length(literal[0]);
  }
  // A longer pattern may match across the parts of a token, so it waits for the token's end.
  void Push(std::string_view text, bool continues) override {
    if (!continues && !by_character_) Flush();
    token_.append(text);
    continues_ = by_character_ && continues;
    pending_ = true;
    if (by_character_) Flush();
  }
  void Finish() override {
    Flush();
    next_->Finish();
  }

 private:
  void Flush() {
    if (!pending_) return;
    pattern_->ReplaceAll(token_, content_);
    next_->Push(token_, continues_);
    token_.clear();
    pending_ = false;
  }

  std::shared_ptr<const Pattern> pattern_;
  std::string content_;
  bool by_character_;
  bool pending_ = false;
  bool continues_ = false;
  std::string token_;
};

class MetaspaceDecoder : public DecodeStage {
 public:
  MetaspaceDecoder(char32_t replacement, bool strip_first) : strip_(strip_first) {
    AppendUtf8(replacement, replacement_);
  }
  void Push(std::string_view text, bool continues) override {
    if (!continues && std::exchange(started_, true)) strip_ = false;
    std::string out;
    for (size_t at = 0; at < text.size();) {
      const std::string_view character = text.substr(at, Utf8Length(text[at]));
      at += character.size();
      if (character != replacement_) {
        out.append(character);
      } else if (!strip_) {
        out.push_back(' ');
      }
    }
    next_->Push(out, continues);
  }
  void Finish() override { next_->Finish(); }

 private:
  std::string replacement_;
  bool strip_;
  bool started_ = false;
};

class SpaceJoinDecoder : public DecodeStage {
 public:
  void Push(std::string_view text, bool continues) override {
    if (std::exchange(started_, true)) next_->Push(" ", true);
    next_->Push(text, continues);
  }
  void Finish() override { next_->Finish(); }

 private:
  bool started_ = false;
};

}  // namespace

std::string ByteLevelBytes(std::string_view token) {
  std::string bytes;
  for (size_t at = 0; at < token.size();) {
    const std::optional<uint8_t> byte = ByteLevelByte(NextCodePoint(token, at));
    if (!byte) return std::string(token);
    bytes.push_back(static_cast<char>(*byte));
  }
  return bytes;
}

int ByteFallbackByte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  const int high = token[3] == '+' ? 0 : HexDigit(token[3]);  // Rust's from_str_radix takes a sign
  const int low = HexDigit(token[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

DecodeStageFactory MakeByteLevelDecoder() {
  return [] { return std::make_unique<ByteLevelDecoder>(); };
}
DecodeStageFactory MakeByteFallbackDecoder() {
  return [] { return std::make_unique<ByteFallbackDecoder>(); };
}
DecodeStageFactory MakeFuseDecoder() {
  return [] { return std::make_unique<FuseDecoder>(); };
}
DecodeStageFactory MakeStripDecoder(char32_t content, size_t start, size_t stop) {
  return [=] { return std::make_unique<StripDecoder>(content, start, stop); };
}
DecodeStageFactory MakeReplaceDecoder(const std::shared_ptr<const Pattern>& pattern, const std::string& content) {
  return [=] { return std::make_unique<ReplaceDecoder>(pattern, content); };
}
DecodeStageFactory MakeMetaspaceDecoder(char32_t replacement, bool strip_first) {
  return [=] { return std::make_unique<MetaspaceDecoder>(replacement, strip_first); };
}
DecodeStageFactory MakeSpaceJoinDecoder() {
  return [] { return std::make_unique<SpaceJoinDecoder>(); };
}

DecodeChain::DecodeChain(const std::vector<DecodeStageFactory>& factories) {
  for (const DecodeStageFactory& factory : factories) stages_.push_back(factory());
  stages_.push_back(std::make_unique<Output>(text_));
  for (size_t i = 0; i + 1 < stages_.size(); ++i) stages_[i]->set_next(stages_[i + 1].get());
}

}  // namespace swiftkv
