// The gradient of attention for whole documents (backward_ops.h), in blocks of 64 keys by 64 queries.
//
// A piece of work is one query head of one document. Everything is computed with keys as rows and queries as columns,
// so that what a block needs transposed is transposed once per head, when its operands are laid out:
//   Sᵀ = K Qᵀ, dPᵀ = V dOᵀ, Pᵀ = exp(scale Sᵀ - lse), dSᵀ = scale Pᵀ (dPᵀ - rowsum(dO O)),
//   dV += Pᵀ dO, dK += dSᵀ Q, dQᵀ += Kᵀ dSᵀ.
// Heads of a K/V head sum their shares of dK and dV afterwards, in order.
namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE {

inline constexpr int64_t kBackwardBlock = 64;

template <class Dot>
typename Dot::Input ToInput(float value) {
  if constexpr (std::is_same_v<typename Dot::Input, BFloat16>) {
    return ToBFloat16(value);
  } else if constexpr (std::is_same_v<typename Dot::Weight, BFloat16>) {
    return ToFloat(ToBFloat16(value));
  } else {
    return value;
  }
}
template <class Dot>
typename Dot::Weight ToWeight(float value) {
  if constexpr (std::is_same_v<typename Dot::Weight, BFloat16>) {
    return ToBFloat16(value);
  } else {
    return value;
  }
}
inline float Widen(float value) { return value; }
inline float Widen(BFloat16 value) { return ToFloat(value); }

// Where element (depth, column) of a right-hand operand with `columns` columns lies.
template <class Dot>
int64_t PairIndex(int64_t depth, int64_t column, int64_t columns) {
  return depth / Dot::kDepth * Dot::kDepth * columns + column * Dot::kDepth + depth % Dot::kDepth;
}

// The operands and sums of one query head of one document, in thread scratch; rows padded to blocks, head_dim to 32.
template <class Dot>
struct HeadOperands {
  using Input = typename Dot::Input;
  using Weight = typename Dot::Weight;
  int64_t rows;  // of the document
  int64_t blocks;
  int64_t dim;          // padded head_dim
  Input* k;             // [blocks * 64, dim]
  Input* v;             // [blocks * 64, dim]
  Input* k_columns;     // [blocks, dim, 64]
  Weight* q_by_dim;     // [blocks][dim x 64 queries]
  Weight* dout_by_dim;  // the same
  Weight* q_by_row;     // [blocks][64 queries x dim]
  Weight* dout_by_row;  // the same
  float* log_sum_exp;   // [blocks * 64]
  float* dout_out;      // [blocks * 64] rowsum(dO O)
  float* dq_columns;    // [blocks, dim, 64]
  float* scores;        // [64 keys, 64 queries]
  float* dp;            // [64 keys, 64 queries]
  Input* p;             // [64 keys, 64 queries]
  Input* ds;            // [64 keys, 64 queries]
  Weight* ds_by_key;    // [64 keys x 64 queries]
  float* dk;            // [64, dim]
  float* dv;            // [64, dim]

  HeadOperands(int64_t document_rows, int64_t head_dim)
      : rows(document_rows),
        blocks(RoundUp(document_rows, kBackwardBlock) / kBackwardBlock),
        dim(RoundUp(head_dim, 32)) {
    const int64_t all = blocks * kBackwardBlock * dim;
    const int64_t square = kBackwardBlock * kBackwardBlock;
    PlaceInThreadScratch([&](auto place) {
      place(&k, all);
      place(&v, all);
      place(&k_columns, all);
      place(&q_by_dim, all);
      place(&dout_by_dim, all);
      place(&q_by_row, all);
      place(&dout_by_row, all);
      place(&log_sum_exp, blocks * kBackwardBlock);
      place(&dout_out, blocks * kBackwardBlock);
      place(&dq_columns, all);
      place(&scores, square);
      place(&dp, square);
      place(&p, square);
      place(&ds, square);
      place(&ds_by_key, square);
      place(&dk, kBackwardBlock * dim);
      place(&dv, kBackwardBlock * dim);
    });
  }
};

template <class Dot, class T>
void FillQueries(const AttentionBackwardArgs& args, const AttentionDocument& document, int64_t head,
                 const HeadOperands<Dot>& o) {
  const int64_t size = args.head_dim;
  for (int64_t row = 0; row < o.blocks * kBackwardBlock; ++row) {
    const int64_t block = row / kBackwardBlock * kBackwardBlock * o.dim;
    const int64_t column = row % kBackwardBlock;
    const bool real = row < o.rows;
    const int64_t r = document.row_begin + row;
    const float* q = args.q + r * args.q_stride + head * size;
    const T* out = static_cast<const T*>(args.out) + r * args.out_stride + head * size;
    const T* dout = static_cast<const T*>(args.dout) + r * args.out_stride + head * size;
    float sum = 0;
    for (int64_t i = 0; i < o.dim; ++i) {
      const bool inside = real && i < size;
      const auto query = ToWeight<Dot>(inside ? q[i] : 0.0f);
      const auto gradient = ToWeight<Dot>(inside ? Widen(dout[i]) : 0.0f);
      const int64_t by_dim = block + PairIndex<Dot>(i, column, kBackwardBlock);
      const int64_t by_row = block + PairIndex<Dot>(column, i, o.dim);
      o.q_by_dim[by_dim] = query;
      o.dout_by_dim[by_dim] = gradient;
      o.q_by_row[by_row] = query;
      o.dout_by_row[by_row] = gradient;
      if (inside) sum += Widen(dout[i]) * Widen(out[i]);
    }
    o.dout_out[row] = sum;
    // Rows of padding get weight 0.
    o.log_sum_exp[row] = real ? args.log_sum_exp[r * args.heads + head] : 1e30f;
  }
}

template <class Dot>
void FillKeys(const AttentionBackwardArgs& args, const AttentionDocument& document, int64_t kv_head,
              const HeadOperands<Dot>& o) {
  const int64_t size = args.head_dim;
  for (int64_t row = 0; row < o.blocks * kBackwardBlock; ++row) {
    const int64_t block = row / kBackwardBlock * kBackwardBlock * o.dim;
    const int64_t offset = (document.row_begin + row) * args.kv_stride + kv_head * size;
    for (int64_t i = 0; i < o.dim; ++i) {
      const bool inside = row < o.rows && i < size;
      const auto key = ToInput<Dot>(inside ? args.k[offset + i] : 0.0f);
      o.k[row * o.dim + i] = key;
      o.k_columns[block + i * kBackwardBlock + row % kBackwardBlock] = key;
      o.v[row * o.dim + i] = ToInput<Dot>(inside ? args.v[offset + i] : 0.0f);
    }
  }
}

// Turns scores and dp of a block into p, ds and ds_by_key. Key k of the block is seen by queries q with
// 0 <= q + distance - k < window, distance being the query block's first row less the key block's.
template <class Dot>
void WeighBlock(const HeadOperands<Dot>& o, int64_t query_row, int64_t distance, int64_t window, float scale) {
  const bool masked = distance < kBackwardBlock || (window > 0 && distance + kBackwardBlock > window);
  for (int64_t key = 0; key < kBackwardBlock; key += 2) {
    for (int64_t q = 0; q < kBackwardBlock; q += kLanes) {
      const Vec norm = Load(o.log_sum_exp + query_row + q);
      const Vec correction = Load(o.dout_out + query_row + q);
      Vec gradients[2];
      for (int64_t i = 0; i < 2; ++i) {
        const int64_t at = (key + i) * kBackwardBlock + q;
        Vec exponent = MulSub(Load(o.scores + at), Set(scale), norm);
        if (masked) {
          const int64_t begin = key + i - distance - q;
          exponent = KeepLanes(exponent, begin, window > 0 ? begin + window : kLanes);
        }
        const Vec p = Exp(exponent);
        gradients[i] = p * (Load(o.dp + at) - correction) * Set(scale);
        Store(o.p + at, p);
        Store(o.ds + at, gradients[i]);
      }
      StoreSteps(o.ds_by_key + key * kBackwardBlock + q * Dot::kDepth, kBackwardBlock, gradients[0], gradients[1]);
    }
  }
}

// One block of keys against all blocks of queries that see it.
template <class Dot>
void BackwardKeyBlock(const AttentionBackwardArgs& args, const HeadOperands<Dot>& o, int64_t key_block) {
  const int64_t block_elements = kBackwardBlock * o.dim;
  const int64_t keys = key_block * block_elements;
  bool first = true;
  for (int64_t query_block = key_block; query_block < o.blocks; ++query_block) {
    const int64_t distance = (query_block - key_block) * kBackwardBlock;
    if (args.window > 0 && distance - kBackwardBlock >= args.window) break;
    const int64_t queries = query_block * block_elements;
    BlockProduct<Dot>(o.k + keys, kBackwardBlock, o.q_by_dim + queries, kBackwardBlock, o.dim, o.scores, false);
    BlockProduct<Dot>(o.v + keys, kBackwardBlock, o.dout_by_dim + queries, kBackwardBlock, o.dim, o.dp, false);
    WeighBlock(o, query_block * kBackwardBlock, distance, args.window, args.scale);
    BlockProduct<Dot>(o.p, kBackwardBlock, o.dout_by_row + queries, o.dim, kBackwardBlock, o.dv, !first);
    BlockProduct<Dot>(o.ds, kBackwardBlock, o.q_by_row + queries, o.dim, kBackwardBlock, o.dk, !first);
    BlockProduct<Dot>(o.k_columns + keys, o.dim, o.ds_by_key, kBackwardBlock, kBackwardBlock, o.dq_columns + queries,
                      key_block > 0);
    first = false;
  }
}

// dk_share, dv_share: [rows, heads, head_dim] this head's part of the gradients of its K/V head.
template <class Dot, class T>
void BackwardHead(const AttentionBackwardArgs& args, const AttentionDocument& document, int64_t head, float* dk_share,
                  float* dv_share) {
  const HeadOperands<Dot> o(document.rows, args.head_dim);
  BeginBlockProducts();
  FillQueries<Dot, T>(args, document, head, o);
  FillKeys(args, document, head / (args.heads / args.kv_heads), o);
  // With a window a query block may first be met by a later key block than 0.
  if (args.window > 0) std::fill(o.dq_columns, o.dq_columns + o.blocks * kBackwardBlock * o.dim, 0.0f);
  const int64_t size = args.head_dim;
  for (int64_t key_block = 0; key_block < o.blocks; ++key_block) {
    BackwardKeyBlock(args, o, key_block);
    const int64_t first = key_block * kBackwardBlock;
    for (int64_t row = 0; row < std::min(kBackwardBlock, o.rows - first); ++row) {
      const int64_t out = ((document.row_begin + first + row) * args.heads + head) * size;
      std::memcpy(dk_share + out, o.dk + row * o.dim, static_cast<size_t>(size) * sizeof(float));
      std::memcpy(dv_share + out, o.dv + row * o.dim, static_cast<size_t>(size) * sizeof(float));
    }
  }
  EndBlockProducts();
  for (int64_t row = 0; row < o.rows; ++row) {
    float* dq = args.dq + (document.row_begin + row) * args.dq_stride + head * size;
    const float* columns = o.dq_columns + row / kBackwardBlock * kBackwardBlock * o.dim + row % kBackwardBlock;
    for (int64_t i = 0; i < size; ++i) dq[i] = columns[i * kBackwardBlock];
  }
}

template <class Dot, class T>
void RunAttentionBackward(const AttentionBackwardArgs& args, float* dk_share, float* dv_share) {
  const auto documents = static_cast<int64_t>(args.documents.size());
  ParallelFor(documents * args.heads, [&](int64_t item) {
    BackwardHead<Dot, T>(args, args.documents[item / args.heads], item % args.heads, dk_share, dv_share);
  });
  const int64_t group = args.heads / args.kv_heads;
  const int64_t size = args.head_dim;
  const auto add = [&](const float* share, int64_t row, int64_t kv_head, float* out) {
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      const float* part = share + (row * args.heads + head) * size;
      for (int64_t i = 0; i < size; i += kLanes) {
        StoreUpTo(out + i, LoadUpTo(out + i, size - i) + LoadUpTo(part + i, size - i), size - i);
      }
    }
  };
  ForEachRow(args.rows, 2 * args.heads * size, [&](int64_t row) {
    for (int64_t kv_head = 0; kv_head < args.kv_heads; ++kv_head) {
      const int64_t out = row * args.dkv_stride + kv_head * size;
      add(dk_share, row, kv_head, args.dk + out);
      add(dv_share, row, kv_head, args.dv + out);
    }
  });
}

inline void AttentionBackward(const AttentionBackwardArgs& args, float* dk_share, float* dv_share) {
  if (args.dtype == DType::kBF16) {
    RunAttentionBackward<DotBf16, BFloat16>(args, dk_share, dv_share);
  } else {
    RunAttentionBackward<DotF32, float>(args, dk_share, dv_share);
  }
}

}  // namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE
