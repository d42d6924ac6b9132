#include "model/resident.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace swiftkv {
namespace {

using kernels::AttentionSequence;

// Puts arrays one after another and says where each begins.
class Packer {
 public:
  explicit Packer(std::vector<std::byte>* bytes) : bytes_(bytes) { bytes_->clear(); }

  int64_t Add(const void* data, int64_t size, int64_t padded_size) {
    constexpr int64_t kAlignment = 16;
    const auto begin = (static_cast<int64_t>(bytes_->size()) + kAlignment - 1) / kAlignment * kAlignment;
    bytes_->resize(static_cast<size_t>(begin + padded_size));
    if (size > 0) std::memcpy(bytes_->data() + begin, data, static_cast<size_t>(size));
    return begin;
  }

 private:
  std::vector<std::byte>* bytes_;
};

// Block tables of the tiles' sequences, each once, and how many of their entries are read.
std::unordered_map<const int32_t*, int64_t> BlockTables(std::span<const Tile> tiles) {
  std::unordered_map<const int32_t*, int64_t> tables;
  for (const Tile& tile : tiles) {
    for (const AttentionSequence& sequence : tile.sequences) {
      if (sequence.rows == 0) continue;
      int64_t& blocks = tables[sequence.block_table];
      blocks = std::max<int64_t>(blocks, sequence.positions[sequence.rows - 1] / kKvBlockTokens + 1);
    }
  }
  return tables;
}

}  // namespace

Status ResidentVectors::Place(const std::vector<float>& values) {
  if (values.empty()) return Ok();
  const auto bytes = static_cast<int64_t>(values.size() * sizeof(float));
  SWIFTKV_ASSIGN_OR_RETURN(AlignedBuffer copy, AlignedBuffer::Allocate(bytes, "norms and biases", memory_));
  memory_.Write(copy.data(), values.data(), bytes);
  copies_.insert_or_assign(values.data(), std::move(copy));
  return Ok();
}

Status ResidentVectors::Place(const Weights& weights) {
  if (memory_.is_host() || placed_) return Ok();
  for (const LayerWeights& layer : weights.layers) {
    for (const std::vector<float>* values :
         {&layer.input_layernorm, &layer.post_attention_layernorm, &layer.qkv_bias, &layer.q_norm, &layer.k_norm,
          &layer.q_bias_swiftkv, &layer.q_norm_swiftkv, &layer.o_bias, &layer.gate_up_bias, &layer.down_bias}) {
      SWIFTKV_RETURN_IF_ERROR(Place(*values));
    }
  }
  for (const std::vector<float>& values : weights.later.k_norm) SWIFTKV_RETURN_IF_ERROR(Place(values));
  SWIFTKV_RETURN_IF_ERROR(Place(weights.later.norm_swiftkv));
  SWIFTKV_RETURN_IF_ERROR(Place(weights.later.kv_bias));
  SWIFTKV_RETURN_IF_ERROR(Place(weights.norm));
  placed_ = true;
  return Ok();
}

const float* ResidentVectors::At(const std::vector<float>& values) const {
  if (values.empty()) return nullptr;
  return memory_.is_host() ? values.data() : copies_.at(values.data()).as<float>();
}

// On a device every move costs what was recorded, so few are made.
ResidentRope::ResidentRope(const ModelConfig& config, MemorySpace& memory)
    : table_(config),
      memory_(memory),
      first_positions_(memory.is_host() ? 1 : std::min<int64_t>(config.max_position_embeddings, 16384)),
      half_(config.head_dim / 2) {}

Result<bool> ResidentRope::Grow(int64_t positions) {
  if (positions <= positions_) return false;
  SWIFTKV_RETURN_IF_ERROR(table_.Grow(std::max(positions, first_positions_)));
  if (!memory_.is_host()) {
    const int64_t bytes = table_.positions() * half_ * 4;
    // Where there is no memory, later steps go on with what is there.
    SWIFTKV_ASSIGN_OR_RETURN(AlignedBuffer copy, AlignedBuffer::Allocate(2 * bytes, "rotary embedding", memory_));
    memory_.Write(copy.data(), table_.cos(), bytes);
    memory_.Write(copy.data() + bytes, table_.sin(), bytes);
    copy_ = std::move(copy);
  }
  positions_ = table_.positions();
  return true;
}

Result<bool> ResidentRows::Place(StepRows rows, std::span<const int32_t> ids, int64_t padded) {
  host_ = std::move(rows);
  padded_ = padded;
  if (!memory_.is_host()) return PlaceOnDevice(ids);
  positions_ = host_.positions.data();
  slots_ = host_.slots.data();
  ids_ = ids.data();
  return false;
}

Result<bool> ResidentRows::PlaceOnDevice(std::span<const int32_t> ids) {
  const int64_t rows = host_.rows();
  std::vector<AttentionSequence> sequences;
  for (Tile& tile : host_.tiles) {
    std::stable_partition(tile.sequences.begin(), tile.sequences.end(),
                          [](const AttentionSequence& sequence) { return sequence.rows > 1; });
    if (rows < padded_) {
      tile.rows = padded_;
      tile.sequences.resize(static_cast<size_t>(padded_));
    }
    sequences.insert(sequences.end(), tile.sequences.begin(), tile.sequences.end());
  }
  host_.slots.resize(static_cast<size_t>(padded_), -1);

  Packer packer(&staging_);
  const int64_t sequences_at = packer.Add(nullptr, 0, std::ssize(sequences) * int64_t{sizeof(AttentionSequence)});
  const int64_t slots_at = packer.Add(host_.slots.data(), padded_ * 8, padded_ * 8);
  const int64_t positions_at = packer.Add(host_.positions.data(), rows * 4, padded_ * 4);
  const int64_t ids_at = packer.Add(ids.data(), std::ssize(ids) * 4, padded_ * 4);
  std::unordered_map<const int32_t*, int64_t> tables = BlockTables(host_.tiles);
  for (auto& [table, place] : tables) place = packer.Add(table, place * 4, place * 4);

  const bool moves = std::ssize(staging_) > copy_.bytes();
  if (moves) {
    copy_ = AlignedBuffer();
    // Tables grow as answers do: room for twice as much keeps the addresses.
    SWIFTKV_ASSIGN_OR_RETURN(copy_, AlignedBuffer::Allocate(2 * std::ssize(staging_), "rows of a step", memory_));
  }
  const auto at = [&](int64_t place) { return reinterpret_cast<const int32_t*>(copy_.data() + place); };
  positions_ = at(positions_at);
  ids_ = at(ids_at);
  slots_ = reinterpret_cast<const int64_t*>(copy_.data() + slots_at);
  const auto* resident = reinterpret_cast<const AttentionSequence*>(copy_.data() + sequences_at);
  for (AttentionSequence& sequence : sequences) {
    if (sequence.rows == 0) continue;
    sequence.positions = positions_ + (sequence.positions - host_.positions.data());
    sequence.block_table = at(tables.at(sequence.block_table));
  }
  if (!sequences.empty()) {
    std::memcpy(staging_.data() + sequences_at, sequences.data(), sequences.size() * sizeof(AttentionSequence));
  }
  for (Tile& tile : host_.tiles) {
    tile.resident_sequences = resident;
    resident += tile.sequences.size();
  }
  memory_.Write(copy_.data(), staging_.data(), std::ssize(staging_));
  return moves;
}

}  // namespace swiftkv
