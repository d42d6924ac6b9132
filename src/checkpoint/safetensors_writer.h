// Writes a Hugging Face checkpoint as it is computed: tensor after tensor, in shards, nothing held in memory.
//
//   SWIFTKV_ASSIGN_OR_RETURN(auto writer, SafetensorsWriter::Create(folder, {{"model.norm.weight", {576}}, ...}, {}));
//   SWIFTKV_RETURN_IF_ERROR(writer.Append(rows));  // any piece of the tensors' values, in the order given to Create
//   SWIFTKV_RETURN_IF_ERROR(writer.Finish());
//   SWIFTKV_RETURN_IF_ERROR(WriteFile(folder + "/config.json", ...));  // last: a folder without it is no model
//
// One shard is called model.safetensors; several are model-0000k-of-0000n.safetensors with an index, cut where
// transformers cuts them. Files appear under their names only in Finish, when all of them are complete on the disk;
// without Finish (an error, a full disk) nothing is left of them.
#ifndef SWIFTKV_CHECKPOINT_SAFETENSORS_WRITER_H_
#define SWIFTKV_CHECKPOINT_SAFETENSORS_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/file.h"
#include "base/status.h"

namespace swiftkv {

struct TensorToWrite {
  std::string name;
  std::vector<int64_t> shape;
  std::optional<DType> dtype = {};  // absent: the writer's
};

struct SafetensorsWriterOptions {
  DType dtype = DType::kBF16;               // kF16, kBF16 or kF32
  int64_t max_shard_bytes = 4'000'000'000;  // of tensor data, as in the published checkpoints; one tensor may exceed it
};

// One file of a checkpoint.
struct Shard {
  std::string name;
  std::vector<size_t> tensors;  // by their places in the list
  int64_t bytes = 0;            // of tensor data
};

// The files that hold these tensors, in this order. Error kInvalidInput: a shape is impossible.
Result<std::vector<Shard>> PlanShards(const std::vector<TensorToWrite>& tensors,
                                      const SafetensorsWriterOptions& options);

class SafetensorsWriter {
 public:
  // Makes the folder where it is missing. Errors: kInvalidInput (the folder holds a model already, a name occurs
  // twice), kResourceExhausted (too little space on the disk), kIo.
  static Result<SafetensorsWriter> Create(const std::string& folder, std::vector<TensorToWrite> tensors,
                                          const SafetensorsWriterOptions& options);
  Status Append(std::span<const float> values);
  // The same of tensors with a type of their own.
  Status AppendBytes(std::span<const std::byte> bytes);
  // Error kInternal if values are missing.
  Status Finish();

  int64_t total_bytes() const { return total_bytes_; }  // of tensor data

 private:
  SafetensorsWriter() = default;
  Status CheckNames() const;
  Status CheckFolder() const;
  Status OpenNextShard();
  std::string Header(const Shard& shard) const;
  std::string Index() const;

  std::string folder_;
  std::vector<TensorToWrite> tensors_;
  DType dtype_ = DType::kBF16;
  int64_t total_bytes_ = 0;
  std::vector<Shard> shards_;
  std::vector<AtomicFile> files_;  // of the shards begun so far
  int64_t shard_bytes_left_ = 0;   // of the last file
};

}  // namespace swiftkv

#endif  // SWIFTKV_CHECKPOINT_SAFETENSORS_WRITER_H_
