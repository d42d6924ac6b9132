// Values of the template language, as Python has them. A Value is 32 bytes: scalars inline, text as a view, and one
// counted reference to the object that holds the rest. Lists, tuples and dicts never change once made (the sandbox
// forbids it), so values form no cycles except through namespaces and macros' scopes, which the interpreter clears.
// Chains of any length can still be made, of namespaces or of generators that hold what they once delivered: whatever
// walks values counts its depth, and destruction does not recurse.
//
// Work and memory are taken from a Budget. Running out does not fail on the spot: the budget remembers it, results
// from then on are meaningless, and the interpreter stops at its next step.
#ifndef SWIFTKV_TEXT_JINJA_VALUE_H_
#define SWIFTKV_TEXT_JINJA_VALUE_H_

#include <bit>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/status.h"

namespace swiftkv::jinja {

// Python's integers are unbounded; 128 bits hold every 64-bit JSON number and what templates compute from them.
using Int = __int128;

struct Object;

// What one rendering may still use, and what it is busy with.
struct Budget {
  int64_t steps = 0;
  int64_t memory_bytes = 0;  // of values alive at one time
  int64_t string_bytes = 0;  // of any one string, and of the output
  int32_t nesting = 0;       // containers within containers
  const char* exhausted = nullptr;
  int32_t printing = 0;      // containers that are being printed, one within the other
  Object* doomed = nullptr;  // objects without references, linked by Object::next_doomed, while one is destroyed
  bool destroying = false;

  bool Spend(int64_t count) {
    steps -= count;
    if (steps < 0) Exhaust("steps");
    return exhausted == nullptr;
  }
  // Work on text: a step per 256 bytes.
  bool SpendBytes(size_t bytes) { return Spend(static_cast<int64_t>(bytes >> 8)); }
  // Before a string of `bytes` is made.
  bool AllowString(size_t bytes) {
    if (bytes > static_cast<uint64_t>(string_bytes)) Exhaust("output_bytes");
    return SpendBytes(bytes);
  }
  // Before `more` bytes are appended to a string of `bytes`.
  bool MayGrow(size_t bytes, size_t more) {
    if (bytes + more > static_cast<uint64_t>(string_bytes)) Exhaust("output_bytes");
    return SpendBytes(more);
  }
  // Before a list of `items` is made.
  bool AllowItems(size_t items) {
    if (items > static_cast<uint64_t>(memory_bytes) / 32) Exhaust("memory_bytes");
    return Spend(static_cast<int64_t>(items >> 3));
  }
  void Exhaust(const char* limit) {
    if (exhausted == nullptr) exhausted = limit;
  }
};

struct Object {
  Object(Budget* budget, int64_t bytes) : budget(budget), bytes(bytes) {
    budget->memory_bytes -= bytes;
    if (budget->memory_bytes < 0) budget->Exhaust("memory_bytes");
  }
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  virtual ~Object() { budget->memory_bytes += bytes; }
  // Drops the references to others.
  virtual void Clear() {}
  // Keeps what walks a value from recursing without bound.
  void SetNesting(int32_t level) {
    nesting = level;
    if (nesting > budget->nesting) budget->Exhaust("depth");
  }

  Budget* budget;
  int64_t bytes;
  int32_t references = 0;
  int32_t nesting = 0;
  Object* next_doomed = nullptr;
};

// Deletes an object without references, and then those that lose their last one with it.
inline void Destroy(Object* object) {
  Budget* budget = object->budget;
  object->next_doomed = std::exchange(budget->doomed, object);
  if (std::exchange(budget->destroying, true)) return;
  while (budget->doomed != nullptr) {
    const Object* next = budget->doomed;
    budget->doomed = next->next_doomed;
    delete next;
  }
  budget->destroying = false;
}

template <class T>
class Ref {
 public:
  Ref() = default;
  explicit Ref(T* object) : object_(object) {
    if (object_ != nullptr) ++object_->references;
  }
  Ref(const Ref& other) : Ref(other.object_) {}
  Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Ref& operator=(Ref other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Ref() {
    if (object_ != nullptr && --object_->references == 0) Destroy(object_);
  }
  T* get() const { return object_; }
  T* operator->() const { return object_; }
  T& operator*() const { return *object_; }

 private:
  T* object_ = nullptr;
};

enum class Kind : uint8_t {
  kMissing,  // a variable that was never set; no expression evaluates to it
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kList,
  kTuple,
  kDict,
  kDictView,
  kRange,
  kGenerator,
  kNamespace,
  kFunction,
};

class Dict;
struct ListObject;
struct DictObject;
struct DictViewObject;
struct RangeObject;
struct GeneratorObject;
struct NamespaceObject;
struct FunctionObject;

class Value {
 public:
  Value() = default;
  static Value None() { return Value(Kind::kNone); }
  static Value Bool(bool value);
  static Value Integer(Int value);
  static Value Float(double value);
  // `text` must outlive the value: the template, the variables, a literal. `owner` keeps it alive otherwise.
  static Value Text(std::string_view text, Object* owner = nullptr, bool markup = false);
  static Value String(Budget* budget, std::string text, bool markup = false);
  static Value List(Budget* budget, std::vector<Value> items);
  static Value Tuple(Budget* budget, std::vector<Value> items);
  static Value FromObject(Kind kind, Object* object);
  // `name` was looked up in vain in a value of kind `in` (kMissing: among the variables).
  static Value Undefined(const Value& name, Kind in = Kind::kMissing);
  // With a message of its own.
  static Value UndefinedBecause(Value message);

  Kind kind() const { return kind_; }
  bool Is(Kind kind) const { return kind_ == kind; }
  bool IsNumber() const { return kind_ == Kind::kBool || kind_ == Kind::kInt || kind_ == Kind::kFloat; }
  bool IsInteger() const { return kind_ == Kind::kBool || kind_ == Kind::kInt; }
  bool IsSequence() const { return kind_ == Kind::kList || kind_ == Kind::kTuple; }

  bool boolean() const { return low_ != 0; }
  Int integer() const { return static_cast<Int>(static_cast<unsigned __int128>(high_) << 64 | low_); }  // bools too
  double real() const { return std::bit_cast<double>(low_); }
  double number() const { return kind_ == Kind::kFloat ? real() : static_cast<double>(integer()); }
  std::string_view text() const { return {reinterpret_cast<const char*>(low_), static_cast<size_t>(high_)}; }
  bool markup() const { return flag_ != 0; }  // the string is jinja's Markup
  Object* object() const { return object_.get(); }
  const std::vector<Value>& items() const;  // kList, kTuple
  const Dict& dict() const;                 // kDict, kNamespace
  const DictViewObject& view() const;
  const RangeObject& range() const;
  GeneratorObject& generator() const;
  NamespaceObject& name_space() const;
  FunctionObject& function() const;
  int32_t nesting() const { return object_.get() == nullptr ? 0 : object_->nesting; }

  // The sentence of the error that using this undefined value is.
  std::string UndefinedMessage() const;

 private:
  explicit Value(Kind kind) : kind_(kind) {}

  Kind kind_ = Kind::kMissing;
  uint8_t flag_ = 0;  // kString: markup; kUndefined: Kind it was looked up in, or kOwnMessage
  uint64_t low_ = 0;
  uint64_t high_ = 0;
  Ref<Object> object_;
};

// Insertion-ordered, with Python's equality of keys (1 == 1.0 == True).
class Dict {
 public:
  using Entry = std::pair<Value, Value>;
  const std::vector<Entry>& entries() const { return entries_; }
  size_t size() const { return entries_.size(); }
  // nullptr if absent. The key must be hashable.
  const Value* Find(Budget* budget, const Value& key) const;
  void Set(Budget* budget, const Value& key, Value value);
  void Reserve(size_t count) { entries_.reserve(count); }
  void Clear() { entries_.clear(), index_.clear(); }

 private:
  std::ptrdiff_t Locate(Budget* budget, const Value& key) const;
  std::vector<Entry> entries_;
  mutable std::unordered_multimap<uint64_t, uint32_t> index_;  // built once the dict is worth it
};

struct StringObject : Object {
  StringObject(Budget* budget, std::string value)
      : Object(budget, static_cast<int64_t>(64 + value.capacity())), text(std::move(value)) {}
  std::string text;
};

struct ListObject : Object {
  ListObject(Budget* budget, std::vector<Value> values);
  std::vector<Value> items;
};

struct DictObject : Object {
  DictObject(Budget* budget, Dict values);
  Dict dict;
};

struct DictViewObject : Object {
  enum class Part : uint8_t { kKeys, kValues, kItems };
  DictViewObject(Budget* budget, const Value& of, Part which) : Object(budget, 80), dict(of), part(which) {
    SetNesting(of.nesting() + 1);
  }
  Value At(size_t index) const;  // key, value or (key, value)
  Value dict;
  Part part;
};

struct RangeObject : Object {
  RangeObject(Budget* budget, Int first, Int end, Int by) : Object(budget, 96), start(first), stop(end), step(by) {}
  int64_t size() const;
  Int At(int64_t index) const { return start + step * index; }
  Int start, stop, step;
};

// A Python generator: its items come once. `next` gives false at the end.
struct GeneratorObject : Object {
  using Next = std::function<Result<bool>(Value*)>;
  // `source`: what `next` reads from.
  GeneratorObject(Budget* budget, const Value& source, Next function) : Object(budget, 256), next(std::move(function)) {
    SetNesting(source.nesting() + 1);
  }
  Next next;
};

// namespace(): the only value that templates can change.
struct NamespaceObject : Object {
  NamespaceObject(Budget* budget, Dict values) : Object(budget, 128), attributes(std::move(values)) {}
  void Clear() override { attributes.Clear(); }
  Dict attributes;
  bool printing = false;  // being printed: stops at itself
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string_view, Value>> keyword;
  Value keyword_owner;  // keeps names that a mapping passed
};

class Runtime;
// Filters, tests, methods and global functions; `self` is what they apply to.
using Builtin = Result<Value> (*)(Runtime& runtime, const Value& self, const Arguments& arguments);

struct FunctionObject : Object {
  using Object::Object;
  virtual Result<Value> Call(Runtime& runtime, const Arguments& arguments) = 0;
  virtual std::string Repr() const { return "<function>"; }
  // loop.index and the like; false where the function has no such attribute.
  virtual Result<bool> Attribute(Runtime&, std::string_view, Value*) { return false; }
};

// Python's names of types: "str", "dict", "NoneType", ...
std::string_view TypeName(const Value& value);

bool Truth(const Value& value);
bool Equals(Budget* budget, const Value& a, const Value& b);
// "unhashable type: 'list'" where the value cannot be a key.
Status CheckHashable(Budget* budget, const Value& value);

// Builders.
Value MakeDict(Budget* budget, Dict dict);
Value MakeGenerator(Budget* budget, const Value& source, GeneratorObject::Next next);

}  // namespace swiftkv::jinja

#endif  // SWIFTKV_TEXT_JINJA_VALUE_H_
