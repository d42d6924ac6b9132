// What kernels read beside matrices and the rows they work on, where they read it: on the host as it is, on a device as
// a copy. Internal to the model room.
#ifndef SWIFTKV_MODEL_RESIDENT_H_
#define SWIFTKV_MODEL_RESIDENT_H_

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/status.h"
#include "model/config.h"
#include "model/rope.h"
#include "model/step_rows.h"
#include "model/weights.h"

namespace swiftkv {

// The norms and biases of a model.
class ResidentVectors {
 public:
  explicit ResidentVectors(MemorySpace& memory) : memory_(memory) {}

  // Copies all of them, once. Error kResourceExhausted.
  Status Place(const Weights& weights);
  // Null where `values` is empty.
  const float* At(const std::vector<float>& values) const;

 private:
  Status Place(const std::vector<float>& values);

  MemorySpace& memory_;
  bool placed_ = false;
  std::unordered_map<const float*, AlignedBuffer> copies_;  // by the host's address
};

// The tables of rotary embedding.
class ResidentRope {
 public:
  ResidentRope(const ModelConfig& config, MemorySpace& memory);

  // As RopeTable::Grow. True: the tables have moved.
  Result<bool> Grow(int64_t positions);

  // [positions, head_dim / 2]
  const float* cos() const { return memory_.is_host() ? table_.cos() : copy_.as<float>(); }
  const float* sin() const { return memory_.is_host() ? table_.sin() : copy_.as<float>() + positions_ * half_; }

 private:
  RopeTable table_;
  MemorySpace& memory_;
  int64_t first_positions_;  // that the first call makes at least
  int64_t half_;             // head_dim / 2
  int64_t positions_ = 0;
  AlignedBuffer copy_;  // [2, positions, head_dim / 2], on a device
};

// The rows of a step (StepRows) where kernels read them.
class ResidentRows {
 public:
  explicit ResidentRows(MemorySpace& memory) : memory_(memory) {}

  // Of `rows` and `ids` [rows] (token ids, or the rows that go on), which must outlive the step. On a device one
  // transfer takes everything there, to addresses that follow from `padded` and the number of sequences: rows up to
  // `padded` are added that write no cache and belong to sequences without rows, which `rows` must then have one of for
  // each row. True: the addresses have changed since the last call with the same numbers.
  Result<bool> Place(StepRows rows, std::span<const int32_t> ids, int64_t padded);

  int64_t rows() const { return padded_; }
  std::span<const Tile> tiles() const { return host_.tiles; }
  const int32_t* positions() const { return positions_; }
  const int64_t* slots() const { return slots_; }
  const int32_t* ids() const { return ids_; }

 private:
  Result<bool> PlaceOnDevice(std::span<const int32_t> ids);

  MemorySpace& memory_;
  StepRows host_;
  int64_t padded_ = 0;
  const int32_t* positions_ = nullptr;  // [padded]
  const int64_t* slots_ = nullptr;      // [padded]
  const int32_t* ids_ = nullptr;        // [padded]
  std::vector<std::byte> staging_;
  AlignedBuffer copy_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_MODEL_RESIDENT_H_
