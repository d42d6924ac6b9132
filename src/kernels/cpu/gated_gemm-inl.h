// Gates and ups as one product whose items end with SiLU, while the caches still have what it reads.
namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE {

template <class Dot>
void RunGatedGemm(const typename Dot::Args& product, const GatedGemmArgs& args) {
  RunGemm<Dot>(product, 2, [&](int64_t row, int64_t rows, int64_t panel) {
    for (int64_t r = row; r < row + rows; ++r) {
      const BFloat16* gate = static_cast<const BFloat16*>(args.gemm.y) + r * args.gemm.y_stride + panel * kPanelColumns;
      SiluMulRow(gate, gate + args.gemm.w->n / 2, kPanelColumns,
                 static_cast<BFloat16*>(args.out) + r * args.out_stride + panel * kPanelColumns);
    }
  });
}

// False: not for this matrix.
inline bool GatedGemm(const GatedGemmArgs& args) {
  const PackedMatrix& w = *args.gemm.w;
  if (w.activation_dtype() != DType::kBF16 || w.int8_inputs || w.n % (2 * kPanelColumns) != 0) return false;
  if (args.gemm.m == 0) return true;
  if (w.dtype == DType::kI8) {
    RunGatedGemm<DotInt8>(QuantizeInputs(args.gemm), args);
  } else {
    RunGatedGemm<DotBf16>(args.gemm, args);
  }
  return true;
}

}  // namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE
