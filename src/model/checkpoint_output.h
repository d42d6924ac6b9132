// Writes a student as a checkpoint in the official SwiftKV layout, or as an adapter: a folder with the SwiftKV tensors
// and the config alone. The folder appears under its name when everything in it is on the disk; before that, and after
// any error, there is nothing, or the folder that it was to replace.
//
//   SWIFTKV_RETURN_IF_ERROR(CheckOutput(files, options));                        // before the long work
//   SWIFTKV_RETURN_IF_ERROR(WriteCheckpoint(files, student, tensors, card, options));
#ifndef SWIFTKV_MODEL_CHECKPOINT_OUTPUT_H_
#define SWIFTKV_MODEL_CHECKPOINT_OUTPUT_H_

#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "checkpoint/compressed_tensors.h"
#include "model/config.h"
#include "model/memory_tensors.h"
#include "model/model_files.h"

namespace swiftkv {

struct OutputOptions {
  std::string folder;
  bool adapter = false;    // only the SwiftKV tensors
  bool overwrite = false;  // replace a model folder that is there
  // Of all projections' matrices; not of embeddings and lm_head.
  std::optional<CompressedFormat> quantization = {};
};

struct FileToWrite {
  std::string name;
  std::string content;
};

// Errors, all kInvalidInput: the folder cannot be created; it exists and is not empty (without `overwrite`), is no
// model folder (with it), is or holds an input or the current folder, or is a mount point, which no folder can be
// renamed to; the reference implementations have no class for this model; its matrices have no whole groups of columns
// for the quantization.
Status CheckOutput(const ModelFiles& files, const OutputOptions& options);

// `tensors`: all SwiftKV tensors of `student`. The base's are written as they are stored: F32, F16 and BF16 in their
// own type, so that the teacher is the base to the last bit; blocks and codes of fewer bits in the type of `tensors`
// (BF16 beside F16). `card`: the text of README.md. Beside the tensors: config.json, and for a whole checkpoint
// generation_config.json, tokenizer, chat template and licence of a Hugging Face folder. `others`: more files, such as
// a GGUF base's tokenizer as such a folder has it. Errors: as CheckOutput; kResourceExhausted (the disk is full), kIo.
Status WriteCheckpoint(const ModelFiles& files, const ModelConfig& student, const MemoryTensors& tensors,
                       const std::string& card, const std::vector<FileToWrite>& others, const OutputOptions& options);

}  // namespace swiftkv

#endif  // SWIFTKV_MODEL_CHECKPOINT_OUTPUT_H_
