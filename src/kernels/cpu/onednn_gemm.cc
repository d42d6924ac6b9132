#include "kernels/cpu/onednn_gemm.h"

#include <omp.h>

#include <dnnl.hpp>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>
#include <tuple>
#include <vector>

#include "kernels/cpu/cpu_kernels.h"

namespace swiftkv::kernels::cpu {
namespace {

// oneDNN's fast code wants dense matrices, so a product is cut into pieces of 256 columns by one section of K by a
// chunk of rows from a short list. Shapes of pieces depend on n and k alone, never on the number of threads, and few
// primitives exist. Within a section (at most kMaxSectionK) oneDNN sums every row in the same order whatever the number
// of rows (docs/decisions/0001-gemm.md; gemm_test checks it).
constexpr int64_t kPanelsPerPiece = 4;
constexpr int64_t kMaxPiecesPerItem = 4;  // pieces that share one dense copy of their inputs
constexpr int64_t kMaxRows = 64;

const dnnl::engine& Engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

// sums [rows, columns] (+)= x [rows, k] times one section of a piece.
struct ProductShape {
  int64_t rows, columns, k;
  bool add;
  bool operator<(const ProductShape& other) const {
    return std::tie(rows, columns, k, add) < std::tie(other.rows, other.columns, other.k, other.add);
  }
};

struct Product {
  dnnl::matmul primitive;
  dnnl::memory::desc x, weights, sums, scratchpad;
};

// oneDNN plans for the number of OpenMP threads of the moment. Ours call it one piece a thread, so it must plan for
// one.
class PlanForOneThread {
 public:
  PlanForOneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~PlanForOneThread() { omp_set_num_threads(before_); }

 private:
  int before_;
};

std::unique_ptr<Product> MakeProduct(const ProductShape& shape) {
  using dnnl::memory;
  auto product = std::make_unique<Product>();
  product->x = memory::desc({shape.rows, shape.k}, memory::data_type::bf16, memory::format_tag::ab);
  product->weights =
      memory::desc({shape.k, shape.columns}, memory::data_type::bf16, static_cast<memory::format_tag>(dnnl_BA16a64b2a));
  product->sums = memory::desc({shape.rows, shape.columns}, memory::data_type::f32, memory::format_tag::ab);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (shape.add) {
    dnnl::post_ops add;
    add.append_sum(1.0f);
    attributes.set_post_ops(add);
  }
  const PlanForOneThread plan;
#if DNNL_VERSION_MAJOR >= 3
  const dnnl::matmul::primitive_desc description(Engine(), product->x, product->weights, product->sums, attributes);
#else
  const dnnl::matmul::primitive_desc description({product->x, product->weights, product->sums}, attributes, Engine());
#endif
  // Other implementations are a thousand times slower.
  if (std::string_view(description.impl_info_str()).substr(0, 3) != "brg") return nullptr;
  product->scratchpad = description.scratchpad_desc();
  product->primitive = dnnl::matmul(description);
  return product;
}

// The product for a shape, made once; null where oneDNN can't (then our own kernel does the piece).
const Product* FindProduct(const ProductShape& shape) {
  static std::mutex mutex;
  static std::map<ProductShape, std::unique_ptr<Product>> products;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = products.find(shape);
  if (found != products.end()) return found->second.get();
  std::unique_ptr<Product> product;
  try {
    product = MakeProduct(shape);
  } catch (const std::exception&) {  // dnnl::error, bad_alloc
  }
  return products.emplace(shape, std::move(product)).first->second.get();
}

// Some rows of some adjacent panels.
struct Item {
  int64_t row, rows, panel, panels;
};

// The item's inputs of one section, [rows, padded section size]: in place where they lie dense, else copied.
const BFloat16* DenseInputs(const GemmArgs& args, const PackedLayout& layout, const Item& item, int64_t section,
                            BFloat16* copy) {
  const int64_t size = layout.SectionSize(section);
  const int64_t padded = layout.PaddedSectionSize(section);
  const auto* x = static_cast<const BFloat16*>(args.x) + item.row * args.x_stride + layout.SectionBegin(section);
  if (padded == args.x_stride) return x;
  for (int64_t i = 0; i < item.rows; ++i) {
    std::copy_n(x + i * args.x_stride, size, copy + i * padded);
    std::fill_n(copy + i * padded + size, padded - size, BFloat16());
  }
  return copy;
}

void Execute(const Product& product, const BFloat16* x, const BFloat16* w, float* sums) {
  thread_local dnnl::stream stream(Engine());
  thread_local std::vector<std::byte> scratchpad;
  scratchpad.resize(product.scratchpad.get_size());
  const auto memory = [](const dnnl::memory::desc& desc, const void* data) {
    return dnnl::memory(desc, Engine(), const_cast<void*>(data));
  };
  product.primitive.execute(stream, {{DNNL_ARG_SRC, memory(product.x, x)},
                                     {DNNL_ARG_WEIGHTS, memory(product.weights, w)},
                                     {DNNL_ARG_DST, memory(product.sums, sums)},
                                     {DNNL_ARG_SCRATCHPAD, memory(product.scratchpad, scratchpad.data())}});
  stream.wait();
}

// False if oneDNN could not; args.y is untouched then.
bool ComputeItem(const GemmArgs& args, const PackedLayout& layout, const Item& item) {
  constexpr int64_t kInputBytes = kMaxRows * kMaxSectionK * static_cast<int64_t>(sizeof(BFloat16));
  constexpr int64_t kPieceColumns = kPanelsPerPiece * kPanelColumns;
  constexpr int64_t kPieceFloats = kMaxRows * kPieceColumns;
  std::byte* scratch =
      ThreadScratch(kInputBytes + kMaxPiecesPerItem * kPieceFloats * static_cast<int64_t>(sizeof(float)));
  auto* sums = reinterpret_cast<float*>(scratch + kInputBytes);  // a dense matrix for each piece
  const auto piece_panels = [&](int64_t panel) { return std::min(kPanelsPerPiece, item.panels - panel); };
  try {
    for (int64_t section = 0; section < layout.sections(); ++section) {
      const BFloat16* x = DenseInputs(args, layout, item, section, reinterpret_cast<BFloat16*>(scratch));
      for (int64_t panel = 0; panel < item.panels; panel += kPanelsPerPiece) {
        const Product* product = FindProduct({.rows = item.rows,
                                              .columns = piece_panels(panel) * kPanelColumns,
                                              .k = layout.PaddedSectionSize(section),
                                              .add = section > 0});
        if (product == nullptr) return false;
        const auto* w = args.w->data.as<BFloat16>() + layout.Offset(section, item.panel + panel);
        Execute(*product, x, w, sums + panel / kPanelsPerPiece * kPieceFloats);
      }
    }
  } catch (const std::exception&) {  // dnnl::error, bad_alloc
    return false;
  }
  for (int64_t panel = 0; panel < item.panels; ++panel) {
    const int64_t first = panel / kPanelsPerPiece * kPanelsPerPiece;
    const float* panel_sums = sums + first / kPanelsPerPiece * kPieceFloats + (panel - first) * kPanelColumns;
    Avx512Bf16Kernels().finish_gemm(args, item.row, item.rows, item.panel + panel, panel_sums,
                                    piece_panels(first) * kPanelColumns);
  }
  return true;
}

// The rows in chunks of 64, 32, 16, ... 1.
void RunItem(const GemmArgs& args, const PackedLayout& layout, Item item) {
  const int64_t end = item.row + item.rows;
  while (item.row < end) {
    item.rows = kMaxRows;
    while (item.rows > end - item.row) item.rows /= 2;
    if (!ComputeItem(args, layout, item)) {
      for (int64_t panel = 0; panel < item.panels; ++panel) {
        Avx512Bf16Kernels().gemm_panel(args, item.row, item.rows, item.panel + panel);
      }
    }
    item.row += item.rows;
  }
}

}  // namespace

void OneDnnGemm(const GemmArgs& args) {
  if (args.w->dtype != DType::kBF16) return Avx512Bf16Kernels().gemm(args);
  const PackedLayout layout(*args.w);
  const int64_t row_blocks = (args.m + kMaxRows - 1) / kMaxRows;
  const int64_t pieces = (layout.panels() + kPanelsPerPiece - 1) / kPanelsPerPiece;
  const int64_t pieces_per_item = std::clamp<int64_t>(row_blocks * pieces / (4 * Threads()), 1, kMaxPiecesPerItem);
  const int64_t panels_per_item = pieces_per_item * kPanelsPerPiece;
  const int64_t items = (layout.panels() + panels_per_item - 1) / panels_per_item;
  ParallelFor(row_blocks * items, [&](int64_t index) {
    const int64_t row = index / items * kMaxRows;
    const int64_t panel = index % items * panels_per_item;
    RunItem(args, layout,
            {.row = row,
             .rows = std::min(kMaxRows, args.m - row),
             .panel = panel,
             .panels = std::min(panels_per_item, layout.panels() - panel)});
  });
}

}  // namespace swiftkv::kernels::cpu
