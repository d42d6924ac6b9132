// Filters of sequences. Those that Python writes as generators deliver their items one by one, and only once.
#include <algorithm>
#include <iterator>
#include <optional>
#include <span>

#include "text/jinja/builtins.h"
#include "text/jinja/format.h"
#include "text/jinja/ops.h"
#include "text/jinja/unicode.h"

namespace swiftkv::jinja {
namespace {

// ---- Attributes by path: "name", "function.name", 0, "a.0.b".

using Path = std::vector<Value>;

Path MakePath(Runtime& runtime, const Value& attribute) {
  if (attribute.Is(Kind::kNone)) return {};
  if (!attribute.Is(Kind::kString)) return {attribute};
  runtime.budget.SpendBytes(attribute.text().size());
  Path path;
  for (size_t begin = 0, end; begin <= attribute.text().size(); begin = end + 1) {
    end = std::min(attribute.text().find('.', begin), attribute.text().size());
    const std::string_view part = attribute.text().substr(begin, end - begin);
    const bool digits = !part.empty() && part.find_first_not_of("0123456789") == std::string_view::npos;
    const std::optional<Int> index = digits ? ParseInt(part, 10) : std::nullopt;
    path.push_back(index ? Value::Integer(*index) : Value::Text(part, attribute.object()));
    if (!runtime.budget.Spend(1)) break;
  }
  return path;
}

// kMissing as `otherwise`: undefined stays undefined.
Result<Value> Follow(Runtime& runtime, Value item, const Path& path, const Value& otherwise = Value()) {
  for (const Value& part : path) {
    SWIFTKV_ASSIGN_OR_RETURN(item, GetItem(runtime, item, part));
    if (item.Is(Kind::kUndefined) && !otherwise.Is(Kind::kMissing)) item = otherwise;
  }
  return item;
}

Value IgnoreCase(Runtime& runtime, const Value& value) {
  if (!value.Is(Kind::kString) || !runtime.budget.AllowString(value.text().size())) return value;
  return Value::String(&runtime.budget, ToLower(value.text()));
}

// The key that sort, unique, min, max and groupby compare by.
struct KeyOf {
  Path path;
  bool case_sensitive = false;
  Value otherwise;

  Result<Value> operator()(Runtime& runtime, const Value& item) const {
    SWIFTKV_ASSIGN_OR_RETURN(Value key, Follow(runtime, item, path, otherwise));
    return case_sensitive ? key : IgnoreCase(runtime, key);
  }
};

// ---- Sorting.

using Keyed = std::pair<Value, Value>;  // key, item

// A merge sort: unlike std::stable_sort it can stop at the first pair that has no order, and any order is safe.
Status MergeSort(Runtime& runtime, std::vector<Keyed>* items, bool reverse) {
  std::vector<Keyed> merged(items->size());
  for (size_t width = 1; width < items->size(); width *= 2) {
    for (size_t begin = 0; begin < items->size(); begin += 2 * width) {
      const size_t middle = std::min(begin + width, items->size()), end = std::min(middle + width, items->size());
      size_t left = begin, right = middle;
      for (size_t out = begin; out < end; ++out) {
        bool take_right = left == middle;
        if (left < middle && right < end) {
          const Keyed& a = (*items)[left];
          const Keyed& b = (*items)[right];
          SWIFTKV_ASSIGN_OR_RETURN(take_right,
                                   reverse ? Less(runtime, a.first, b.first) : Less(runtime, b.first, a.first));
        }
        merged[out] = std::move((*items)[take_right ? right++ : left++]);
      }
    }
    items->swap(merged);
  }
  return Ok();
}

template <class GetKey>
Result<std::vector<Keyed>> SortedBy(Runtime& runtime, const std::vector<Value>& items, bool reverse,
                                    const GetKey& get_key) {
  std::vector<Keyed> keyed;
  for (const Value& item : items) {
    SWIFTKV_RETURN_IF_ERROR(runtime.Step());
    SWIFTKV_ASSIGN_OR_RETURN(Value key, get_key(item));
    keyed.emplace_back(std::move(key), item);
  }
  SWIFTKV_RETURN_IF_ERROR(MergeSort(runtime, &keyed, reverse));
  return keyed;
}

// A flag that Python takes as a number: a string is an error.
Result<bool> IntegerFlag(const Value* value) {
  if (value == nullptr) return false;
  return ToIndex(*value).map([](int64_t number) { return number != 0; });
}

Value ListOfItems(Runtime& runtime, std::vector<Keyed> keyed) {
  std::vector<Value> items;
  items.reserve(keyed.size());
  for (Keyed& entry : keyed) items.push_back(std::move(entry.second));
  return Value::List(&runtime.budget, std::move(items));
}

Result<Value> Sort(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "sort", {"reverse", "case_sensitive", "attribute"}, 0));
  SWIFTKV_ASSIGN_OR_RETURN(const bool reverse, IntegerFlag(bound[0]));
  const bool case_sensitive = bound[1] != nullptr && Truth(*bound[1]);
  std::vector<Path> paths;  // "a,b" sorts by a, then by b
  if (bound[2] != nullptr && bound[2]->Is(Kind::kString)) {
    const std::string_view names = bound[2]->text();
    for (size_t begin = 0, end; begin <= names.size(); begin = end + 1) {
      end = std::min(names.find(',', begin), names.size());
      paths.push_back(MakePath(runtime, Part(*bound[2], names.substr(begin, end - begin))));
    }
  } else {
    paths.push_back(MakePath(runtime, bound[2] != nullptr ? *bound[2] : Value::None()));
  }
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<Value> items, ToVector(runtime, self));
  const auto get_key = [&](const Value& item) -> Result<Value> {
    std::vector<Value> keys;
    for (const Path& path : paths) {
      SWIFTKV_ASSIGN_OR_RETURN(Value key, Follow(runtime, item, path));
      keys.push_back(case_sensitive ? std::move(key) : IgnoreCase(runtime, key));
    }
    return Value::List(&runtime.budget, std::move(keys));
  };
  SWIFTKV_ASSIGN_OR_RETURN(std::vector<Keyed> sorted, SortedBy(runtime, items, reverse, get_key));
  return ListOfItems(runtime, std::move(sorted));
}

Result<Value> DictSort(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "dictsort", {"case_sensitive", "by", "reverse"}, 0));
  const bool case_sensitive = bound[0] != nullptr && Truth(*bound[0]);
  const std::string by = bound[1] != nullptr ? Str(&runtime.budget, *bound[1]) : "key";
  if (by != "key" && by != "value") return InvalidInput("You can only sort by either \"key\" or \"value\"");
  if (self.Is(Kind::kUndefined)) return UndefinedError(self);
  if (!self.Is(Kind::kDict)) return InvalidInput("'{}' object has no attribute 'items'", TypeName(self));
  SWIFTKV_ASSIGN_OR_RETURN(const bool reverse, IntegerFlag(bound[2]));
  std::vector<Value> pairs;
  for (const auto& [key, value] : self.dict().entries()) pairs.push_back(Value::Tuple(&runtime.budget, {key, value}));
  const auto get_key = [&](const Value& pair) -> Result<Value> {
    const Value& key = pair.items()[by == "key" ? 0 : 1];
    return case_sensitive ? key : IgnoreCase(runtime, key);
  };
  SWIFTKV_ASSIGN_OR_RETURN(std::vector<Keyed> sorted, SortedBy(runtime, pairs, reverse, get_key));
  return ListOfItems(runtime, std::move(sorted));
}

Result<KeyOf> BindKey(Runtime& runtime, const Value* attribute, const Value* case_sensitive) {
  KeyOf key;
  if (attribute != nullptr) key.path = MakePath(runtime, *attribute);
  key.case_sensitive = case_sensitive != nullptr && Truth(*case_sensitive);
  return key;
}

template <bool largest>
Result<Value> Extreme(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound,
                           Bind(arguments, largest ? "max" : "min", {"case_sensitive", "attribute"}, 0));
  SWIFTKV_ASSIGN_OR_RETURN(const KeyOf key_of, BindKey(runtime, bound[1], bound[0]));
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<Value> items, ToVector(runtime, self));
  if (items.empty()) return Value::UndefinedBecause(Value::Text("No aggregated item, sequence was empty."));
  const Value* best = &items.front();
  SWIFTKV_ASSIGN_OR_RETURN(Value best_key, key_of(runtime, *best));
  for (const Value& item : std::span(items).subspan(1)) {
    SWIFTKV_ASSIGN_OR_RETURN(Value key, key_of(runtime, item));
    SWIFTKV_ASSIGN_OR_RETURN(const bool better, largest ? Compare(runtime, Operator::kGreater, key, best_key)
                                                        : Less(runtime, key, best_key));
    if (!better) continue;
    best = &item;
    best_key = std::move(key);
  }
  return *best;
}

Result<Value> GroupBy(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound,
                           Bind(arguments, "groupby", {"attribute", "default", "case_sensitive"}, 1));
  SWIFTKV_ASSIGN_OR_RETURN(KeyOf key_of, BindKey(runtime, bound[0], bound[2]));
  if (bound[1] != nullptr && !bound[1]->Is(Kind::kNone)) key_of.otherwise = *bound[1];
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<Value> items, ToVector(runtime, self));
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<Keyed> sorted,
                           SortedBy(runtime, items, false, [&](const Value& item) { return key_of(runtime, item); }));
  std::vector<Value> groups;
  for (size_t begin = 0, end; begin < sorted.size(); begin = end) {
    std::vector<Value> members;
    for (end = begin; end < sorted.size() && Equals(&runtime.budget, sorted[end].first, sorted[begin].first); ++end) {
      members.push_back(sorted[end].second);
    }
    SWIFTKV_RETURN_IF_ERROR(runtime.Step());
    // The group is named as its first member spells it.
    SWIFTKV_ASSIGN_OR_RETURN(Value name, Follow(runtime, members[0], key_of.path, key_of.otherwise));
    groups.push_back(Value::Tuple(&runtime.budget, {name, Value::List(&runtime.budget, std::move(members))}));
  }
  return Value::List(&runtime.budget, std::move(groups));
}

// ---- One by one.

// A generator over the items of `self`; `next(runtime, iterator, item)` gives the next item of the result.
template <class Next>
Result<Value> Generate(Runtime& runtime, const Value& self, Next next) {
  SWIFTKV_ASSIGN_OR_RETURN(Iterator iterator, Iterator::Over(self));
  return MakeGenerator(&runtime.budget, self,
                       [&runtime, iterator = std::move(iterator), next = std::move(next)](Value* item) mutable {
                         return next(runtime, &iterator, item);
                       });
}

// Python's generators do nothing, not even fail, before their first item is wanted.
template <Result<Value> (*make)(Runtime&, const Value&, const Arguments&)>
Result<Value> Lazily(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return MakeGenerator(
      &runtime.budget, self,
      [&runtime, self, arguments, items = std::optional<Iterator>()](Value* item) mutable -> Result<bool> {
        if (!items) {
          SWIFTKV_ASSIGN_OR_RETURN(const Value made, make(runtime, self, arguments));
          SWIFTKV_ASSIGN_OR_RETURN(items, Iterator::Over(made));
        }
        return items->Next(runtime, item);
      });
}

// What map applies: an attribute, or a filter with arguments.
struct Mapping {
  Path path;
  Value otherwise;
  Builtin filter = nullptr;
  Arguments arguments;
};

Result<Mapping> BindMapping(Runtime& runtime, const Arguments& arguments) {
  Mapping mapping;
  if (arguments.positional.empty()) {
    SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "map", {"attribute", "default"}, 0));
    if (bound[0] == nullptr) return InvalidInput("map requires a filter argument");
    mapping.path = MakePath(runtime, *bound[0]);
    if (bound[1] != nullptr && !bound[1]->Is(Kind::kNone)) mapping.otherwise = *bound[1];
    return mapping;
  }
  const Value& name = arguments.positional[0];
  mapping.filter = name.Is(Kind::kString) ? FindFilter(name.text()) : nullptr;
  if (mapping.filter == nullptr) return InvalidInput("No filter named {}.", Repr(&runtime.budget, name));
  mapping.arguments = arguments;
  mapping.arguments.positional.erase(mapping.arguments.positional.begin());
  return mapping;
}

Result<Value> Map(Runtime& runtime, const Value& self, const Arguments& arguments) {
  if (!Truth(self)) return Value::List(&runtime.budget, {});
  SWIFTKV_ASSIGN_OR_RETURN(Mapping mapping, BindMapping(runtime, arguments));
  return Generate(runtime, self,
                  [mapping = std::move(mapping)](Runtime& rt, Iterator* from, Value* item) -> Result<bool> {
                    Value input;
                    SWIFTKV_ASSIGN_OR_RETURN(const bool more, from->Next(rt, &input));
                    if (!more) return false;
                    auto result = mapping.filter != nullptr ? mapping.filter(rt, input, mapping.arguments)
                                                            : Follow(rt, input, mapping.path, mapping.otherwise);
                    SWIFTKV_ASSIGN_OR_RETURN(*item, std::move(result));
                    return true;
                  });
}

template <bool by_attribute, bool wanted>
Result<Value> Select(Runtime& runtime, const Value& self, const Arguments& arguments) {
  if (!Truth(self)) return Value::List(&runtime.budget, {});
  constexpr size_t kTestAt = by_attribute ? 1 : 0;
  const auto& given = arguments.positional;
  if (given.size() < kTestAt) return InvalidInput("Missing parameter for attribute name");
  Path path = by_attribute ? MakePath(runtime, given[0]) : Path();
  Builtin test = nullptr;
  Arguments rest = arguments;
  if (given.size() > kTestAt) {
    const Value& name = given[kTestAt];
    test = name.Is(Kind::kString) ? FindTest(name.text()) : nullptr;
    if (test == nullptr) return InvalidInput("No test named {}.", Repr(&runtime.budget, name));
    rest.positional.erase(rest.positional.begin(), rest.positional.begin() + kTestAt + 1);
  }
  return Generate(
      runtime, self,
      [path = std::move(path), test, rest = std::move(rest)](Runtime& rt, Iterator* from, Value* item) -> Result<bool> {
        while (true) {
          SWIFTKV_ASSIGN_OR_RETURN(const bool more, from->Next(rt, item));
          if (!more) return false;
          SWIFTKV_ASSIGN_OR_RETURN(Value value, Follow(rt, *item, path));
          if (test != nullptr) {
            SWIFTKV_ASSIGN_OR_RETURN(value, test(rt, value, rest));
          }
          if (Truth(value) == wanted) return true;
        }
      });
}

Result<Value> Items(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_RETURN_IF_ERROR(Bind(arguments, "items", {}, 0));
  if (!self.Is(Kind::kDict) && !self.Is(Kind::kUndefined)) {
    return InvalidInput("Can only get item pairs from a mapping.");
  }
  const Value pairs =
      self.Is(Kind::kUndefined)
          ? self
          : Value::FromObject(Kind::kDictView, new DictViewObject(&runtime.budget, self, DictViewObject::Part::kItems));
  return Generate(runtime, pairs, [](Runtime& rt, Iterator* from, Value* item) { return from->Next(rt, item); });
}

Result<Value> Unique(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "unique", {"case_sensitive", "attribute"}, 0));
  SWIFTKV_ASSIGN_OR_RETURN(KeyOf key_of, BindKey(runtime, bound[1], bound[0]));
  return Generate(
      runtime, self,
      [key_of = std::move(key_of), seen = Dict()](Runtime& rt, Iterator* from, Value* item) mutable -> Result<bool> {
        while (true) {
          SWIFTKV_ASSIGN_OR_RETURN(const bool more, from->Next(rt, item));
          if (!more) return false;
          SWIFTKV_ASSIGN_OR_RETURN(const Value key, key_of(rt, *item));
          SWIFTKV_RETURN_IF_ERROR(CheckHashable(&rt.budget, key));
          if (seen.Find(&rt.budget, key) != nullptr) continue;
          seen.Set(&rt.budget, key, Value::None());
          return true;
        }
      });
}

Result<Value> Batch(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "batch", {"linecount", "fill_with"}, 1));
  SWIFTKV_ASSIGN_OR_RETURN(const int64_t size, ToIndex(*bound[0]));
  const Value fill = bound[1] != nullptr ? *bound[1] : Value::None();
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<Value> items, ToVector(runtime, self));
  std::vector<Value> batches;
  std::vector<Value> batch;
  const auto finish = [&] { batches.push_back(Value::List(&runtime.budget, std::exchange(batch, {}))); };
  for (const Value& item : items) {
    SWIFTKV_RETURN_IF_ERROR(runtime.Step());
    if (static_cast<int64_t>(batch.size()) == size) finish();
    batch.push_back(item);
  }
  if (!batch.empty()) {
    const int64_t missing = fill.Is(Kind::kNone) ? 0 : std::max<int64_t>(size - static_cast<int64_t>(batch.size()), 0);
    if (!runtime.budget.AllowItems(static_cast<size_t>(missing))) return runtime.Exhausted();
    batch.insert(batch.end(), static_cast<size_t>(missing), fill);
    finish();
  }
  return Value::List(&runtime.budget, std::move(batches));
}

Result<Value> SliceFilter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "slice", {"slices", "fill_with"}, 1));
  SWIFTKV_ASSIGN_OR_RETURN(const int64_t slices, ToIndex(*bound[0]));
  const Value fill = bound[1] != nullptr ? *bound[1] : Value::None();
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<Value> items, ToVector(runtime, self));
  if (slices == 0) return InvalidInput("integer division or modulo by zero");
  const auto size = static_cast<int64_t>(items.size());
  std::vector<Value> parts;
  for (int64_t number = 0, begin = 0; number < slices; ++number) {
    SWIFTKV_RETURN_IF_ERROR(runtime.Step());
    const bool extra = number < size % slices;
    const int64_t end = begin + size / slices + (extra ? 1 : 0);
    std::vector<Value> part(items.begin() + begin, items.begin() + end);
    if (!fill.Is(Kind::kNone) && !extra) part.push_back(fill);
    parts.push_back(Value::List(&runtime.budget, std::move(part)));
    begin = end;
  }
  return Value::List(&runtime.budget, std::move(parts));
}

// ---- All at once.

Result<Value> List(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_RETURN_IF_ERROR(Bind(arguments, "list", {}, 0));
  SWIFTKV_ASSIGN_OR_RETURN(std::vector<Value> items, ToVector(runtime, self));
  return Value::List(&runtime.budget, std::move(items));
}

Result<Value> Join(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "join", {"d", "attribute"}, 0));
  const std::string separator = bound[0] != nullptr ? Str(&runtime.budget, *bound[0]) : "";
  const Path path = bound[1] != nullptr ? MakePath(runtime, *bound[1]) : Path();
  SWIFTKV_ASSIGN_OR_RETURN(Iterator iterator, Iterator::Over(self));
  std::string text;
  Value item;
  for (bool first = true;; first = false) {
    SWIFTKV_ASSIGN_OR_RETURN(const bool more, iterator.Next(runtime, &item));
    if (!more) break;
    SWIFTKV_ASSIGN_OR_RETURN(const Value value, Follow(runtime, item, path));
    if (!first) text += separator;
    if (!runtime.budget.MayGrow(text.size(), separator.size() + (value.Is(Kind::kString) ? value.text().size() : 0))) {
      return runtime.Exhausted();
    }
    AppendStr(&runtime.budget, &text, value);
  }
  return Value::String(&runtime.budget, std::move(text));
}

Result<Value> First(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_RETURN_IF_ERROR(Bind(arguments, "first", {}, 0));
  SWIFTKV_ASSIGN_OR_RETURN(Iterator iterator, Iterator::Over(self));
  Value item;
  SWIFTKV_ASSIGN_OR_RETURN(const bool more, iterator.Next(runtime, &item));
  return more ? item : Value::UndefinedBecause(Value::Text("No first item, sequence was empty."));
}

Result<Value> Last(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_RETURN_IF_ERROR(Bind(arguments, "last", {}, 0));
  if (self.Is(Kind::kGenerator)) return InvalidInput("'generator' object is not reversible");
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<Value> items, ToVector(runtime, self));
  if (items.empty()) return Value::UndefinedBecause(Value::Text("No last item, sequence was empty."));
  return items.back();
}

Result<Value> Reverse(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_RETURN_IF_ERROR(Bind(arguments, "reverse", {}, 0));
  if (self.Is(Kind::kString)) {
    return GetSlice(runtime, self, Value::None(), Value::None(), Value::Integer(-1));
  }
  auto items = ToVector(runtime, self);
  if (!items) {
    if (runtime.budget.exhausted != nullptr) return runtime.Exhausted();
    return InvalidInput("argument must be iterable");
  }
  std::reverse(items->begin(), items->end());
  const Value list = Value::List(&runtime.budget, std::move(*items));
  if (self.Is(Kind::kGenerator)) return list;
  return Generate(runtime, list, [](Runtime& rt, Iterator* from, Value* item) { return from->Next(rt, item); });
}

Result<Value> Sum(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "sum", {"attribute", "start"}, 0));
  const Path path = bound[0] != nullptr ? MakePath(runtime, *bound[0]) : Path();
  Value sum = bound[1] != nullptr ? *bound[1] : Value::Integer(0);
  if (sum.Is(Kind::kString)) return InvalidInput("sum() can't sum strings [use ''.join(seq) instead]");
  SWIFTKV_ASSIGN_OR_RETURN(Iterator iterator, Iterator::Over(self));
  Value item;
  while (true) {
    SWIFTKV_ASSIGN_OR_RETURN(const bool more, iterator.Next(runtime, &item));
    if (!more) return sum;
    SWIFTKV_ASSIGN_OR_RETURN(const Value value, Follow(runtime, item, path));
    SWIFTKV_ASSIGN_OR_RETURN(sum, Arithmetic(runtime, Operator::kAdd, sum, value));
  }
}

constexpr NamedBuiltin kFilters[] = {
    {"join", Join},
    {"list", List},
    {"items", Lazily<Items>},
    {"map", Lazily<Map>},
    {"select", Lazily<Select<false, true>>},
    {"reject", Lazily<Select<false, false>>},
    {"selectattr", Lazily<Select<true, true>>},
    {"rejectattr", Lazily<Select<true, false>>},
    {"first", First},
    {"last", Last},
    {"reverse", Reverse},
    {"sort", Sort},
    {"dictsort", DictSort},
    {"unique", Lazily<Unique>},
    {"min", Extreme<false>},
    {"max", Extreme<true>},
    {"sum", Sum},
    {"groupby", GroupBy},
    {"batch", Lazily<Batch>},
    {"slice", Lazily<SliceFilter>},
};

}  // namespace

Builtin FindSequenceFilter(std::string_view name) { return FindIn(std::begin(kFilters), std::end(kFilters), name); }

}  // namespace swiftkv::jinja
