// A file of text seen as rows: the lines of a .jsonl file, or a plain text's documents.
//
//   SWIFTKV_ASSIGN_OR_RETURN(RowFile file, RowFile::Open("chats.jsonl"));
//   for (uint64_t at = 0; auto row = file.NextRow(&at);) Use(row->text);
#ifndef SWIFTKV_DISTILL_ROW_FILE_H_
#define SWIFTKV_DISTILL_ROW_FILE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/file.h"
#include "base/status.h"

namespace swiftkv {

inline constexpr size_t kMaxRowBytes = 16 << 20;        // a longer line can't be used
inline constexpr size_t kPlainDocumentBytes = 8 << 10;  // plain text is cut at the first blank line after so much

class RowFile {
 public:
  struct Row {
    uint64_t begin = 0;     // its place in the file
    std::string_view text;  // without the line's end; never blank
  };

  // Errors: those of MappedFile::Open. A path that ends in .jsonl holds JSON, another plain text.
  static Result<RowFile> Open(const std::string& path);

  // The first row at or after *at, which is moved behind it; nullopt at the file's end.
  std::optional<Row> NextRow(uint64_t* at) const;

  // "chats.jsonl:17", for messages. Counts lines from the file's beginning.
  std::string Place(uint64_t begin) const;

  bool is_json() const { return is_json_; }
  const std::string& path() const { return file_->path(); }
  std::string_view content() const {
    return {reinterpret_cast<const char*>(file_->bytes().data()), file_->bytes().size()};
  }

 private:
  RowFile(std::shared_ptr<MappedFile> file, bool is_json) : file_(std::move(file)), is_json_(is_json) {}

  std::shared_ptr<MappedFile> file_;
  bool is_json_;
};

// Where a document that begins `text` ends: behind the first blank line after kPlainDocumentBytes; if there is none
// before twice that, behind the first line's end; if there is none, behind a whole character.
size_t PlainDocumentEnd(std::string_view text);

// Of the bytes alone: the same in every file.
uint64_t HashRow(std::string_view text);

}  // namespace swiftkv

#endif  // SWIFTKV_DISTILL_ROW_FILE_H_
