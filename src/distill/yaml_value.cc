#include "distill/yaml_value.h"

#include <yaml-cpp/depthguard.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <exception>
#include <optional>
#include <sstream>
#include <utility>

#include "base/printable.h"
#include "text/unicode.h"

namespace swiftkv {
namespace {

// Builds the value as the parser reports it. After a first error it only lets the parser, which can't be stopped but by
// an exception, run to its end.
class Builder : public YAML::EventHandler {
 public:
  explicit Builder(const std::string& origin) : origin_(origin) {}

  void OnDocumentStart(const YAML::Mark& /*mark*/) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t /*anchor*/) override {
    Add(NewValue(mark, YamlValue::Kind::kNull));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t /*anchor*/) override {
    Fail(mark, "an alias (*name); write the value out instead");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& /*tag*/, YAML::anchor_t /*anchor*/,
                const std::string& scalar) override {
    YamlValue value = NewValue(mark, YamlValue::Kind::kScalar);
    value.scalar = scalar;
    Add(std::move(value));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& /*tag*/, YAML::anchor_t /*anchor*/,
                       YAML::EmitterStyle::value /*style*/) override {
    Begin(mark, YamlValue::Kind::kList);
  }
  void OnSequenceEnd() override { End(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& /*tag*/, YAML::anchor_t /*anchor*/,
                  YAML::EmitterStyle::value /*style*/) override {
    Begin(mark, YamlValue::Kind::kMap);
  }
  void OnMapEnd() override { End(); }

  Result<YamlValue> Finish() {
    if (error_) return tl::unexpected<Error>(*error_);
    return std::move(root_);
  }

 private:
  struct Frame {
    YamlValue value;
    std::optional<std::string> key;  // of a map: read, and its value not yet
  };

  static YamlValue NewValue(const YAML::Mark& mark, YamlValue::Kind kind) {
    YamlValue value;
    value.kind = kind;
    value.line = mark.line + 1;
    return value;
  }

  void Fail(const YAML::Mark& mark, std::string_view what) {
    if (!error_) error_ = InvalidInput("{}:{}: {}", origin_, mark.line + 1, what).value();
  }

  void Begin(const YAML::Mark& mark, YamlValue::Kind kind) {
    if (static_cast<int64_t>(frames_.size()) >= kMaxYamlDepth) {
      Fail(mark, fmt::format("YAML nested more than {} deep", kMaxYamlDepth));
    }
    if (!error_) frames_.push_back({NewValue(mark, kind), std::nullopt});
  }

  void End() {
    if (error_) return;
    YamlValue value = std::move(frames_.back().value);
    frames_.pop_back();
    Add(std::move(value));
  }

  void Add(YamlValue value) {
    if (error_) return;
    if (frames_.empty()) {
      root_ = std::move(value);
      return;
    }
    Frame& frame = frames_.back();
    if (frame.value.kind == YamlValue::Kind::kList) {
      frame.value.items.push_back(std::move(value));
    } else if (frame.key) {
      frame.value.keys.push_back(*std::exchange(frame.key, std::nullopt));
      frame.value.items.push_back(std::move(value));
    } else {
      SetKey(&frame, std::move(value));
    }
  }

  void SetKey(Frame* frame, YamlValue key) {
    YAML::Mark mark;
    mark.line = static_cast<int>(key.line - 1);
    if (key.kind != YamlValue::Kind::kScalar) return Fail(mark, "a key that is no word");
    if (frame->value.Find(key.scalar) != nullptr) {
      return Fail(mark, fmt::format("the key {} stands twice", Printable(key.scalar)));
    }
    if (frame->value.keys.size() >= kMaxYamlMembers) {
      return Fail(mark, fmt::format("a map of more than {} keys", kMaxYamlMembers));
    }
    frame->key = std::move(key.scalar);
  }

  const std::string& origin_;
  std::vector<Frame> frames_;
  YamlValue root_;
  std::optional<Error> error_;
};

}  // namespace

const YamlValue* YamlValue::Find(std::string_view key) const {
  if (kind != Kind::kMap) return nullptr;
  const auto found = std::find(keys.begin(), keys.end(), key);
  return found == keys.end() ? nullptr : &items[static_cast<size_t>(found - keys.begin())];
}

Result<YamlValue> ParseYaml(std::string_view text, const std::string& origin) {
  if (static_cast<int64_t>(text.size()) > kMaxYamlBytes) {
    return InvalidInput("{}: {} bytes of YAML, the limit is {}", origin, text.size(), kMaxYamlBytes);
  }
  if (!IsValidUtf8(text)) return InvalidInput("{}: not valid UTF-8", origin);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    Builder builder(origin);
    if (!parser.HandleNextDocument(builder)) return YamlValue();
    Result<YamlValue> root = builder.Finish();
    Builder second(origin);
    if (root && parser.HandleNextDocument(second)) return InvalidInput("{}: more than one YAML document", origin);
    return root;
  } catch (const YAML::DeepRecursion&) {
    return InvalidInput("{}: YAML nested more than {} deep", origin, kMaxYamlDepth);
  } catch (const YAML::Exception& exception) {
    return InvalidInput("{}:{}: not valid YAML: {}", origin, exception.mark.line + 1, Printable(exception.msg));
  } catch (const std::exception& exception) {
    return InvalidInput("{}: not valid YAML: {}", origin, Printable(exception.what()));
  }
}

}  // namespace swiftkv
