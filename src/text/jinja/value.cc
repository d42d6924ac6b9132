#include "text/jinja/value.h"

#include <cmath>

#include "text/jinja/format.h"

namespace swiftkv::jinja {
namespace {

constexpr uint8_t kOwnMessage = 255;
constexpr size_t kIndexFrom = 9;  // entries from which hashing beats comparing with all

uint64_t Mix(uint64_t hash, uint64_t value) { return (hash ^ value) * 0x9e3779b97f4a7c15u + (hash >> 7); }

// Equal values have equal hashes.
uint64_t Hash(Budget* budget, const Value& value) {
  if (!budget->Spend(1)) return 0;
  switch (value.kind()) {
    case Kind::kBool:
    case Kind::kInt:
      return Mix(1, static_cast<uint64_t>(value.integer()));
    case Kind::kFloat: {
      const double real = value.real();
      if (std::abs(real) < 9e18 && std::trunc(real) == real)
        return Mix(1, static_cast<uint64_t>(static_cast<Int>(real)));
      return Mix(1, std::bit_cast<uint64_t>(real));
    }
    case Kind::kString:
      budget->SpendBytes(value.text().size());
      return std::hash<std::string_view>()(value.text());
    case Kind::kTuple: {
      uint64_t hash = 2;
      for (const Value& item : value.items()) hash = Mix(hash, Hash(budget, item));
      return hash;
    }
    case Kind::kNone:
    case Kind::kUndefined:
    case Kind::kMissing:
      return Mix(3, static_cast<uint64_t>(value.kind()));
    case Kind::kRange:
      return Mix(4, static_cast<uint64_t>(value.range().size()));
    default:
      return Mix(5, reinterpret_cast<uint64_t>(value.object()));
  }
}

bool EqualItems(Budget* budget, const std::vector<Value>& a, const std::vector<Value>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!Equals(budget, a[i], b[i])) return false;
  }
  return true;
}

bool EqualDicts(Budget* budget, const Dict& a, const Dict& b) {
  if (a.size() != b.size()) return false;
  for (const auto& [key, value] : a.entries()) {
    const Value* other = b.Find(budget, key);
    if (other == nullptr || !Equals(budget, value, *other)) return false;
  }
  return true;
}

bool EqualRanges(const RangeObject& a, const RangeObject& b) {
  if (a.size() != b.size()) return false;
  return a.size() == 0 || (a.start == b.start && (a.size() == 1 || a.step == b.step));
}

bool EqualNumbers(const Value& a, const Value& b) {
  if (a.IsInteger() && b.IsInteger()) return a.integer() == b.integer();
  return static_cast<long double>(a.Is(Kind::kFloat) ? a.real() : static_cast<long double>(a.integer())) ==
         static_cast<long double>(b.Is(Kind::kFloat) ? b.real() : static_cast<long double>(b.integer()));
}

std::string ObjectTypeRepr(Kind kind) {
  switch (kind) {
    case Kind::kNone:
      return "None";
    case Kind::kNamespace:
      return "transformers.utils.chat_template_utils.TemplateNamespace object";
    case Kind::kBool:
      return "bool object";
    case Kind::kInt:
      return "int object";
    case Kind::kFloat:
      return "float object";
    case Kind::kString:
      return "str object";
    case Kind::kList:
      return "list object";
    case Kind::kTuple:
      return "tuple object";
    case Kind::kDict:
      return "dict object";
    case Kind::kRange:
      return "range object";
    case Kind::kGenerator:
      return "generator object";
    case Kind::kFunction:
      return "function object";
    default:
      return "object";
  }
}

}  // namespace

Value Value::Bool(bool value) {
  Value result(Kind::kBool);
  result.low_ = value ? 1 : 0;
  return result;
}

Value Value::Integer(Int value) {
  Value result(Kind::kInt);
  result.low_ = static_cast<uint64_t>(value);
  result.high_ = static_cast<uint64_t>(static_cast<unsigned __int128>(value) >> 64);
  return result;
}

Value Value::Float(double value) {
  Value result(Kind::kFloat);
  result.low_ = std::bit_cast<uint64_t>(value);
  return result;
}

Value Value::Text(std::string_view text, Object* owner, bool markup) {
  Value result(Kind::kString);
  result.low_ = reinterpret_cast<uint64_t>(text.data());
  result.high_ = text.size();
  result.flag_ = markup ? 1 : 0;
  result.object_ = Ref<Object>(owner);
  return result;
}

Value Value::String(Budget* budget, std::string text, bool markup) {
  budget->AllowString(text.size());
  auto* object = new StringObject(budget, std::move(text));
  return Text(object->text, object, markup);
}

Value Value::FromObject(Kind kind, Object* object) {
  Value result(kind);
  result.object_ = Ref<Object>(object);
  return result;
}

Value Value::List(Budget* budget, std::vector<Value> items) {
  return FromObject(Kind::kList, new ListObject(budget, std::move(items)));
}

Value Value::Tuple(Budget* budget, std::vector<Value> items) {
  return FromObject(Kind::kTuple, new ListObject(budget, std::move(items)));
}

Value Value::Undefined(const Value& name, Kind in) {
  Value result = name;
  result.kind_ = Kind::kUndefined;
  result.flag_ = static_cast<uint8_t>(in);
  return result;
}

Value Value::UndefinedBecause(Value message) {
  Value result = std::move(message);
  result.kind_ = Kind::kUndefined;
  result.flag_ = kOwnMessage;
  return result;
}

std::string Value::UndefinedMessage() const {
  if (flag_ == kOwnMessage) return std::string(text());
  std::string name;
  AppendStringRepr(&name, text());
  if (flag_ == static_cast<uint8_t>(Kind::kMissing)) return name + " is undefined";
  std::string type;
  AppendStringRepr(&type, ObjectTypeRepr(static_cast<Kind>(flag_)));
  return type + " has no attribute " + name;
}

const std::vector<Value>& Value::items() const { return static_cast<ListObject*>(object_.get())->items; }
const Dict& Value::dict() const {
  if (kind_ == Kind::kNamespace) return static_cast<NamespaceObject*>(object_.get())->attributes;
  return static_cast<DictObject*>(object_.get())->dict;
}
const DictViewObject& Value::view() const { return *static_cast<DictViewObject*>(object_.get()); }
const RangeObject& Value::range() const { return *static_cast<RangeObject*>(object_.get()); }
GeneratorObject& Value::generator() const { return *static_cast<GeneratorObject*>(object_.get()); }
NamespaceObject& Value::name_space() const { return *static_cast<NamespaceObject*>(object_.get()); }
FunctionObject& Value::function() const { return *static_cast<FunctionObject*>(object_.get()); }

ListObject::ListObject(Budget* budget, std::vector<Value> values)
    : Object(budget, static_cast<int64_t>(64 + values.capacity() * sizeof(Value))), items(std::move(values)) {
  int32_t deepest = 0;
  for (const Value& item : items) deepest = std::max(deepest, item.nesting());
  SetNesting(deepest + 1);
}

DictObject::DictObject(Budget* budget, Dict values)
    : Object(budget, static_cast<int64_t>(128 + values.size() * (sizeof(Dict::Entry) + 32))), dict(std::move(values)) {
  int32_t deepest = 0;
  for (const auto& [key, value] : dict.entries()) deepest = std::max({deepest, key.nesting(), value.nesting()});
  SetNesting(deepest + 1);
}

Value DictViewObject::At(size_t index) const {
  const auto& [key, value] = dict.dict().entries()[index];
  if (part == Part::kKeys) return key;
  if (part == Part::kValues) return value;
  return Value::Tuple(budget, {key, value});
}

int64_t RangeObject::size() const {
  if (step > 0 ? start >= stop : start <= stop) return 0;
  return static_cast<int64_t>(step > 0 ? (stop - start - 1) / step + 1 : (start - stop - 1) / -step + 1);
}

std::ptrdiff_t Dict::Locate(Budget* budget, const Value& key) const {
  if (entries_.size() < kIndexFrom) {
    for (size_t i = 0; i < entries_.size(); ++i) {
      if (Equals(budget, entries_[i].first, key)) return static_cast<std::ptrdiff_t>(i);
    }
    return -1;
  }
  while (index_.size() < entries_.size()) {
    const auto at = static_cast<uint32_t>(index_.size());
    index_.emplace(Hash(budget, entries_[at].first), at);
  }
  const auto [begin, end] = index_.equal_range(Hash(budget, key));
  for (auto entry = begin; entry != end; ++entry) {
    if (Equals(budget, entries_[entry->second].first, key)) return entry->second;
  }
  return -1;
}

const Value* Dict::Find(Budget* budget, const Value& key) const {
  const std::ptrdiff_t at = Locate(budget, key);
  return at < 0 ? nullptr : &entries_[static_cast<size_t>(at)].second;
}

void Dict::Set(Budget* budget, const Value& key, Value value) {
  const std::ptrdiff_t at = Locate(budget, key);
  if (at >= 0) {
    entries_[static_cast<size_t>(at)].second = std::move(value);
  } else {
    entries_.emplace_back(key, std::move(value));
  }
}

std::string_view TypeName(const Value& value) {
  switch (value.kind()) {
    case Kind::kMissing:
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return value.markup() ? "Markup" : "str";
    case Kind::kList:
      return "list";
    case Kind::kTuple:
      return "tuple";
    case Kind::kDict:
      return "dict";
    case Kind::kDictView:
      return value.view().part == DictViewObject::Part::kKeys     ? "dict_keys"
             : value.view().part == DictViewObject::Part::kValues ? "dict_values"
                                                                  : "dict_items";
    case Kind::kRange:
      return "range";
    case Kind::kGenerator:
      return "generator";
    case Kind::kNamespace:
      return "TemplateNamespace";
    case Kind::kFunction:
      return "function";
  }
  return "object";
}

bool Truth(const Value& value) {
  switch (value.kind()) {
    case Kind::kMissing:
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInt:
      return value.integer() != 0;
    case Kind::kFloat:
      return value.real() != 0;
    case Kind::kString:
      return !value.text().empty();
    case Kind::kList:
    case Kind::kTuple:
      return !value.items().empty();
    case Kind::kDict:
      return value.dict().size() != 0;
    case Kind::kDictView:
      return value.view().dict.dict().size() != 0;
    case Kind::kRange:
      return value.range().size() != 0;
    default:
      return true;
  }
}

bool Equals(Budget* budget, const Value& a, const Value& b) {
  if (!budget->Spend(1)) return false;
  if (a.IsNumber() && b.IsNumber()) return EqualNumbers(a, b);
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kString:
      budget->SpendBytes(std::min(a.text().size(), b.text().size()));
      return a.text() == b.text();
    case Kind::kList:
    case Kind::kTuple:
      return a.object() == b.object() || EqualItems(budget, a.items(), b.items());
    case Kind::kDict:
      return a.object() == b.object() || EqualDicts(budget, a.dict(), b.dict());
    case Kind::kRange:
      return EqualRanges(a.range(), b.range());
    case Kind::kDictView:
      return a.object() == b.object() ||
             (a.view().part == b.view().part && a.view().part == DictViewObject::Part::kItems &&
              EqualDicts(budget, a.view().dict.dict(), b.view().dict.dict()));
    case Kind::kMissing:
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    default:
      return a.object() == b.object();
  }
}

Status CheckHashable(Budget* budget, const Value& value) {
  if (value.Is(Kind::kTuple)) {
    for (const Value& item : value.items()) {
      if (!budget->Spend(1)) break;
      SWIFTKV_RETURN_IF_ERROR(CheckHashable(budget, item));
    }
  } else if (value.Is(Kind::kList) || value.Is(Kind::kDict) || value.Is(Kind::kDictView)) {
    return InvalidInput("unhashable type: '{}'", TypeName(value));
  }
  return Ok();
}

Value MakeDict(Budget* budget, Dict dict) {
  return Value::FromObject(Kind::kDict, new DictObject(budget, std::move(dict)));
}

Value MakeGenerator(Budget* budget, const Value& source, GeneratorObject::Next next) {
  return Value::FromObject(Kind::kGenerator, new GeneratorObject(budget, source, std::move(next)));
}

}  // namespace swiftkv::jinja
