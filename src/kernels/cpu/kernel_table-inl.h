// The table of this instruction set's kernels. Included inside a target region, after the kernels.
namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE {

inline constexpr CpuKernels kKernels = {.gemm = Gemm,
                                        .gated_gemm = GatedGemm,
                                        .rms_norm = RmsNorm,
                                        .rope = Rope,
                                        .silu_mul = SiluMul,
                                        .narrow = Narrow,
                                        .multiplies_int8_cache = false,
                                        .logit_stats = ComputeLogitStats,
                                        .kl_divergence = KlDivergence,
                                        .attend = Attend,
                                        .finish_attention = FinishAttention,
                                        .rms_norm_backward = RmsNormBackward,
                                        .rope_backward = RopeBackward,
                                        .silu_mul_backward = SiluMulBackward,
                                        .attention_backward = AttentionBackward,
                                        .kl_loss = KlLoss,
                                        .round = Round};

}  // namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE
