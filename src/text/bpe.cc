#include "text/bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <queue>

#include "base/printable.h"
#include "text/unicode.h"

namespace swiftkv {
namespace {

constexpr std::string_view kWordMark = "▁";
constexpr size_t kShortPiece = 64;  // up to here a linear search for the best pair beats a heap

uint64_t Mix(uint64_t value) {
  value *= 0x9e3779b97f4a7c15ull;
  return value ^ value >> 29;
}

uint64_t PairKey(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

uint64_t HashWord(std::string_view word) {
  uint64_t hash = word.size();
  size_t at = 0;
  for (; at + 8 <= word.size(); at += 8) {
    uint64_t chunk;
    std::memcpy(&chunk, word.data() + at, 8);
    hash = Mix(hash ^ chunk);
  }
  uint64_t rest = 0;
  if (at < word.size()) std::memcpy(&rest, word.data() + at, word.size() - at);
  return Mix(Mix(hash ^ rest));
}

// End of the leading word of a text in which "▁" begins words: before the first "▁" that follows another character.
size_t WordEnd(std::string_view text) {
  size_t end = 0;
  while (text.compare(end, kWordMark.size(), kWordMark) == 0) end += kWordMark.size();
  end = text.find(kWordMark, end);
  return end == text.npos ? text.size() : end;
}

}  // namespace

BpeScratch::BpeScratch() : words_(kWords) {}

Result<Bpe> Bpe::Create(std::vector<std::string> tokens, const std::vector<BpeMerge>& merges, const BpeOptions& options,
                        const std::string& origin) {
  Bpe bpe;
  bpe.options_ = options;
  bpe.tokens_ = std::move(tokens);
  bpe.ids_.reserve(bpe.tokens_.size());
  for (size_t id = 0; id < bpe.tokens_.size(); ++id) {
    if (!bpe.tokens_[id].empty()) bpe.ids_.insert_or_assign(bpe.tokens_[id], static_cast<int32_t>(id));
  }
  SWIFTKV_RETURN_IF_ERROR(bpe.AddMerges(merges, origin));
  bpe.AddInitials();
  bpe.cut_words_ = bpe.MergesStayInWords(merges);
  return bpe;
}

// SentencePiece-style pipelines hand over whole texts, with "▁" for spaces. If no token has a "▁" behind another
// character, nothing ever merges across that place: the words between can be encoded, and remembered, one by one.
bool Bpe::MergesStayInWords(const std::vector<BpeMerge>& merges) const {
  if (options_.byte_level || options_.ignore_merges || !Find(kWordMark)) return false;
  return std::none_of(merges.begin(), merges.end(), [this](const BpeMerge& merge) {
    const std::string token = tokens_[merge.left] + tokens_[merge.right];
    return WordEnd(token) != token.size();
  });
}

Status Bpe::AddMerges(const std::vector<BpeMerge>& merges, const std::string& origin) {
  merges_.resize(std::bit_ceil(merges.size() * 3 / 2 + 2));
  std::string product;
  for (const BpeMerge& merge : merges) {
    product.assign(tokens_[merge.left]).append(tokens_[merge.right]);
    const std::optional<int32_t> id = Find(product);
    if (!id)
      return InvalidInput("{}: merge {} makes '{}', which is not in the vocabulary", origin, merge.rank,
                          Printable(product));
    const uint64_t pair = PairKey(merge.left, merge.right);
    size_t slot = Mix(pair) & (merges_.size() - 1);
    while (merges_[slot].pair != kNoPair && merges_[slot].pair != pair) slot = (slot + 1) & (merges_.size() - 1);
    merges_[slot] = {pair, merge.rank, *id};
  }
  return Ok();
}

void Bpe::AddInitials() {
  constexpr char kHex[] = "0123456789ABCDEF";
  for (int byte = 0; byte < 256; ++byte) {
    const char spelling[] = {'<', '0', 'x', kHex[byte >> 4], kHex[byte & 15], '>'};
    byte_tokens_[byte] = options_.byte_fallback ? Find({spelling, sizeof spelling}).value_or(-1) : -1;
  }
  if (!options_.byte_level) return;
  for (int byte = 0; byte < 256; ++byte) {
    std::string character;
    AppendUtf8(ByteLevelChar(static_cast<uint8_t>(byte)), character);
    if (const std::optional<int32_t> id = Find(character)) {
      initial_[byte] = {*id};
    } else {
      FallBackToBytes(character, initial_[byte]);
    }
  }
}

std::optional<int32_t> Bpe::Find(std::string_view token) const {
  const auto found = ids_.find(token);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

size_t Bpe::KnownBytes(std::string_view text) const {
  if (options_.byte_level) {
    std::array<uint8_t, 256> known;
    for (size_t byte = 0; byte < known.size(); ++byte) known[byte] = initial_[byte].empty() ? 0 : 1;
    return std::accumulate(text.begin(), text.end(), size_t{0},
                           [&](size_t sum, char byte) { return sum + known[static_cast<unsigned char>(byte)]; });
  }
  const bool all = std::all_of(byte_tokens_.begin(), byte_tokens_.end(), [](int32_t id) { return id >= 0; });
  return all ? text.size() : 0;
}

// Appends the character's byte tokens if the vocabulary has them all.
bool Bpe::FallBackToBytes(std::string_view character, std::vector<int32_t>& ids) const {
  for (const char byte : character) {
    if (byte_tokens_[static_cast<unsigned char>(byte)] < 0) return false;
  }
  for (const char byte : character) ids.push_back(byte_tokens_[static_cast<unsigned char>(byte)]);
  return true;
}

const Bpe::Merged* Bpe::FindMerge(int32_t left, int32_t right) const {
  const uint64_t pair = PairKey(left, right);
  size_t slot = Mix(pair) & (merges_.size() - 1);
  while (merges_[slot].pair != pair) {
    if (merges_[slot].pair == kNoPair) return nullptr;
    slot = (slot + 1) & (merges_.size() - 1);
  }
  return &merges_[slot];
}

void Bpe::InitialSymbols(std::string_view piece, std::vector<int32_t>& ids) const {
  bool unknown = false;  // an unknown token is due; as in `tokenizers`, byte tokens overtake it
  const auto flush = [&] {
    if (unknown) ids.push_back(*options_.unknown_id);
    unknown = false;
  };
  const auto add_unknown = [&] {
    if (!options_.unknown_id) return;
    if (!options_.fuse_unknown) flush();
    unknown = true;
  };
  if (options_.byte_level) {
    for (const char byte : piece) {
      const Initial& initial = initial_[static_cast<unsigned char>(byte)];
      if (initial.empty()) {
        add_unknown();
        continue;
      }
      if (initial.size() == 1) flush();
      ids.insert(ids.end(), initial.begin(), initial.end());
    }
  } else {
    for (size_t at = 0; at < piece.size();) {
      const std::string_view character = piece.substr(at, Utf8Length(piece[at]));
      at += character.size();
      if (const std::optional<int32_t> id = Find(character)) {
        flush();
        ids.push_back(*id);
      } else if (!FallBackToBytes(character, ids)) {
        add_unknown();
      }
    }
  }
  flush();
}

void Bpe::Encode(std::string_view piece, BpeScratch& scratch, std::vector<int32_t>& ids) const {
  while (!piece.empty()) {
    const size_t end = cut_words_ ? WordEnd(piece) : piece.size();
    EncodeWord(piece.substr(0, end), scratch, ids);
    piece.remove_prefix(end);
  }
}

void Bpe::EncodeWord(std::string_view piece, BpeScratch& scratch, std::vector<int32_t>& ids) const {
  BpeScratch::Word* word = nullptr;
  if (piece.size() <= BpeScratch::kMaxWord) {
    word = &scratch.words_[HashWord(piece) & (BpeScratch::kWords - 1)];
    if (word->bytes == piece.size() && std::memcmp(word->text, piece.data(), piece.size()) == 0) {
      ids.insert(ids.end(), word->ids, word->ids + word->count);
      return;
    }
  }
  scratch.ids_.clear();
  if (!EncodeWhole(piece, scratch.ids_)) {
    InitialSymbols(piece, scratch.ids_);
    if (scratch.ids_.size() <= kShortPiece) {
      MergeShort(scratch.ids_);
    } else {
      MergeLong(scratch);
    }
  }
  ids.insert(ids.end(), scratch.ids_.begin(), scratch.ids_.end());
  if (word && scratch.ids_.size() <= BpeScratch::kMaxIds) {
    word->bytes = static_cast<uint8_t>(piece.size());
    word->count = static_cast<int32_t>(scratch.ids_.size());
    std::memcpy(word->text, piece.data(), piece.size());
    std::copy(scratch.ids_.begin(), scratch.ids_.end(), word->ids);
  }
}

bool Bpe::EncodeWhole(std::string_view piece, std::vector<int32_t>& ids) const {
  if (!options_.ignore_merges) return false;
  std::string spelled;
  if (options_.byte_level) {
    for (const char byte : piece) AppendUtf8(ByteLevelChar(static_cast<uint8_t>(byte)), spelled);
    piece = spelled;
  }
  const std::optional<int32_t> id = Find(piece);
  if (id) ids.push_back(*id);
  return id.has_value();
}

void Bpe::MergeShort(std::vector<int32_t>& ids) const {
  const Merged* merges[kShortPiece];  // merges[i]: of ids[i] and ids[i + 1]
  size_t count = ids.size();
  for (size_t i = 0; i + 1 < count; ++i) merges[i] = FindMerge(ids[i], ids[i + 1]);
  while (true) {
    const Merged* best = nullptr;
    size_t at = 0;
    for (size_t i = 0; i + 1 < count; ++i) {
      if (merges[i] && (!best || merges[i]->rank < best->rank)) {
        best = merges[i];
        at = i;
      }
    }
    if (!best) break;
    ids[at] = best->id;
    std::copy(ids.begin() + at + 2, ids.begin() + count, ids.begin() + at + 1);
    if (at + 2 < count) std::copy(merges + at + 2, merges + count - 1, merges + at + 1);
    --count;
    if (at > 0) merges[at - 1] = FindMerge(ids[at - 1], ids[at]);
    if (at + 1 < count) merges[at] = FindMerge(ids[at], ids[at + 1]);
  }
  ids.resize(count);
}

void Bpe::MergeLong(BpeScratch& scratch) const {
  struct Candidate {
    int32_t rank;
    int32_t id;
    int64_t left;
    bool operator<(const Candidate& other) const {  // the queue's top is its largest
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };
  constexpr int64_t kNone = -1;
  auto& symbols = scratch.symbols_;
  const auto count = static_cast<int64_t>(scratch.ids_.size());
  symbols.resize(count);
  for (int64_t i = 0; i < count; ++i) symbols[i] = {scratch.ids_[i], i - 1, i + 1 < count ? i + 1 : kNone};

  std::vector<Candidate> initial;
  const auto candidate_at = [&](int64_t left) -> std::optional<Candidate> {
    if (left == kNone || symbols[left].next == kNone) return std::nullopt;
    const Merged* merge = FindMerge(symbols[left].id, symbols[symbols[left].next].id);
    if (!merge) return std::nullopt;
    return Candidate{merge->rank, merge->id, left};
  };
  for (int64_t i = 0; i < count; ++i) {
    if (const auto candidate = candidate_at(i)) initial.push_back(*candidate);
  }
  std::priority_queue<Candidate> queue(std::less<Candidate>{}, std::move(initial));
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    // Merges around it may have used up either symbol since it was queued.
    const auto current = symbols[top.left].id < 0 ? std::nullopt : candidate_at(top.left);
    if (!current || current->id != top.id) continue;
    BpeScratch::Symbol& left = symbols[top.left];
    BpeScratch::Symbol& right = symbols[left.next];
    left.id = top.id;
    left.next = right.next;
    if (left.next != kNone) symbols[left.next].previous = top.left;
    right.id = -1;
    if (const auto candidate = candidate_at(left.previous)) queue.push(*candidate);
    if (const auto candidate = candidate_at(top.left)) queue.push(*candidate);
  }
  scratch.ids_.clear();
  for (int64_t i = 0; i != kNone; i = symbols[i].next) scratch.ids_.push_back(symbols[i].id);
}

}  // namespace swiftkv
