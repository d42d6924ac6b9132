// Folders that appear whole or not at all, whatever ends the process or the power.
//
//   SWIFTKV_ASSIGN_OR_RETURN(AtomicFolder folder, AtomicFolder::Create("out/checkpoint-100"));
//   SWIFTKV_RETURN_IF_ERROR(WriteFile(folder.path() + "/state.json", ...));
//   SWIFTKV_RETURN_IF_ERROR(folder.Commit());   // now there is out/checkpoint-100
//
// Errors are kIo unless said.
#ifndef SWIFTKV_BASE_DURABLE_FOLDER_H_
#define SWIFTKV_BASE_DURABLE_FOLDER_H_

#include <string>

#include "base/status.h"

namespace swiftkv {

// Makes what `path` names durable: the entries of the folder that holds it.
Status SyncFolderOf(const std::string& path);

// Makes a folder and those above it where they are missing, durably.
Status MakeFolders(const std::string& path);

// Renames a file or folder, durably.
Status RenameDurably(const std::string& from, const std::string& to);

// Removes a folder and the files in it. There may be none; a folder inside it is an error.
Status RemoveFolder(const std::string& path);
// Removes a file or link, or a folder with all that it holds. There may be none.
Status RemoveAll(const std::string& path);

// A folder under a temporary name beside its own. Without Commit the destructor removes it, and `path` is untouched.
class AtomicFolder {
 public:
  // The folder above `path` exists.
  static Result<AtomicFolder> Create(const std::string& path);
  AtomicFolder(AtomicFolder&& other) noexcept;
  AtomicFolder& operator=(AtomicFolder&& other) = delete;
  ~AtomicFolder();
  const std::string& path() const { return temporary_; }  // where to write its files; no folders
  // Gives it its name, which is free. The files in it are durable already, as AtomicFile leaves them. After an error it
  // has its temporary name.
  Status Commit();
  // The same where a folder may have the name: that one is removed. At any moment one of the two has it, complete (on
  // file systems that can't exchange names neither has it for a moment; the old one is then "out.old-4711").
  Status Replace();

 private:
  AtomicFolder() = default;
  Status ReplaceByTwoRenames();
  std::string path_;
  std::string temporary_;  // empty once it has its name
};

// The mark of temporary names: "checkpoint-100.tmp-4711" is what a process that was killed left of "checkpoint-100".
inline constexpr char kTemporaryMark[] = ".tmp-";

}  // namespace swiftkv

#endif  // SWIFTKV_BASE_DURABLE_FOLDER_H_
