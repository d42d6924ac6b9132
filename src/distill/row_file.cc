#include "distill/row_file.h"

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "distill/permutation.h"

namespace swiftkv {
namespace {

constexpr std::string_view kBlanks = " \t\r\n\v\f";

bool IsBlank(std::string_view text) { return text.find_first_not_of(kBlanks) == std::string_view::npos; }

// Behind the line that holds `place`, its newline included.
size_t LineEnd(std::string_view text, size_t place) {
  const size_t newline = text.find('\n', place);
  return newline == std::string_view::npos ? text.size() : newline + 1;
}

}  // namespace

size_t PlainDocumentEnd(std::string_view text) {
  constexpr size_t kLongest = 2 * kPlainDocumentBytes;
  if (text.size() <= kPlainDocumentBytes) return text.size();
  const std::string_view window = text.substr(0, kLongest);
  const size_t first_line_end = LineEnd(window, kPlainDocumentBytes);
  for (size_t end = first_line_end; end < window.size();) {
    const size_t next = LineEnd(window, end);
    if (IsBlank(window.substr(end, next - end))) return next;
    end = next;
  }
  if (window.size() == text.size()) return text.size();
  if (window[first_line_end - 1] == '\n') return first_line_end;
  size_t end = window.size();
  while (end > kPlainDocumentBytes && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  return end;
}

uint64_t HashRow(std::string_view text) {
  uint64_t hash = text.size();
  while (!text.empty()) {
    uint64_t word = 0;
    const size_t size = std::min(text.size(), sizeof word);
    std::memcpy(&word, text.data(), size);
    hash = Mix64(hash ^ word) + 0x9e3779b97f4a7c15;
    text.remove_prefix(size);
  }
  return Mix64(hash);
}

Result<RowFile> RowFile::Open(const std::string& path) {
  SWIFTKV_ASSIGN_OR_RETURN(std::shared_ptr<MappedFile> file, MappedFile::Open(path));
  return RowFile(std::move(file), std::filesystem::path(path).extension() == ".jsonl");
}

std::optional<RowFile::Row> RowFile::NextRow(uint64_t* at) const {
  const std::string_view all = content();
  while (*at < all.size()) {
    const uint64_t begin = *at;
    const std::string_view rest = all.substr(begin);
    *at = begin + (is_json_ ? LineEnd(rest, 0) : PlainDocumentEnd(rest));
    std::string_view text = all.substr(begin, *at - begin);
    if (IsBlank(text)) continue;
    text.remove_suffix(text.size() - 1 - text.find_last_not_of(kBlanks));
    return Row{begin, text};
  }
  return std::nullopt;
}

std::string RowFile::Place(uint64_t begin) const {
  const std::string_view before = content().substr(0, begin);
  return fmt::format("{}:{}", path(), 1 + std::count(before.begin(), before.end(), '\n'));
}

}  // namespace swiftkv
