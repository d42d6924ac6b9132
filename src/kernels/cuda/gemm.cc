#include "kernels/cuda/gemm.h"

#include <algorithm>

namespace swiftkv::kernels::cuda {
namespace {

constexpr int64_t kWorkspaceBytes = int64_t{64} << 20;  // enough for split-K on Hopper (NVIDIA advises 32 MiB)
constexpr size_t kMaxPlans = 4096;

cudaDataType_t CudaType(DType dtype) {
  if (dtype == DType::kF32) return CUDA_R_32F;
  return dtype == DType::kBF16 ? CUDA_R_16BF : CUDA_R_8F_E4M3;
}

// The largest power of two up to 256 that divides an address.
int64_t Alignment(const void* address) {
  const auto bits = static_cast<int64_t>(reinterpret_cast<uintptr_t>(address) | 256);
  return bits & -bits;
}

}  // namespace

// cuBLASLt's matrices are column by column: y [m, n] is its [n, m], made of w as a transposed [k, n] and x as [k, m].
struct Gemm::Plan {
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t w = nullptr;
  cublasLtMatrixLayout_t x = nullptr;
  cublasLtMatrixLayout_t y = nullptr;
  cublasLtMatmulAlgo_t algorithm = {};
  cublasStatus_t status = CUBLAS_STATUS_SUCCESS;

  Plan() = default;
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
  ~Plan() {
    if (y != nullptr) cublasLtMatrixLayoutDestroy(y);
    if (x != nullptr) cublasLtMatrixLayoutDestroy(x);
    if (w != nullptr) cublasLtMatrixLayoutDestroy(w);
    if (product != nullptr) cublasLtMatmulDescDestroy(product);
  }
  template <class T>
  void Set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    if (status == CUBLAS_STATUS_SUCCESS) {
      status = cublasLtMatmulDescSetAttribute(product, attribute, &value, sizeof value);
    }
  }
};

Gemm::~Gemm() {
  plans_.clear();
  if (handle_ != nullptr) cublasLtDestroy(handle_);
}

Status Gemm::Init() {
  if (const cublasStatus_t status = cublasLtCreate(&handle_); status != CUBLAS_STATUS_SUCCESS) {
    return ResourceExhausted("cuBLASLt can't start: {}", cublasLtGetStatusString(status));
  }
  SWIFTKV_ASSIGN_OR_RETURN(workspace_, AlignedBuffer::Allocate(kWorkspaceBytes, "cuBLASLt's workspace", *device_));
  return Ok();
}

cublasStatus_t Gemm::MakePlan(const Shape& s, Plan* plan) {
  const cudaDataType_t type = CudaType(s.w_dtype);
  plan->status = cublasLtMatmulDescCreate(&plan->product, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  plan->Set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
  if (s.w_dtype == DType::kF8E4M3) {
    plan->Set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
    plan->Set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
    plan->Set(CUBLASLT_MATMUL_DESC_FAST_ACCUM, int8_t{1});
    // No algorithm is found for vectors of scales that are not there; these stand for those of each call.
    plan->Set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, workspace_.as<float>());
    plan->Set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, workspace_.as<float>());
  }
  if (plan->status != CUBLAS_STATUS_SUCCESS) return plan->status;
  const auto layout = [](cublasLtMatrixLayout_t* out, cudaDataType_t of, int64_t rows, int64_t columns, int64_t ld) {
    return cublasLtMatrixLayoutCreate(out, of, static_cast<uint64_t>(rows), static_cast<uint64_t>(columns), ld);
  };
  for (const cublasStatus_t status :
       {layout(&plan->w, type, s.k, s.n, s.k), layout(&plan->x, type, s.k, s.m, s.x_stride),
        layout(&plan->y, CudaType(s.y_dtype), s.n, s.m, s.y_stride)}) {
    if (status != CUBLAS_STATUS_SUCCESS) return status;
  }

  cublasLtMatmulPreference_t preference = nullptr;
  cublasLtMatmulPreferenceCreate(&preference);
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value);
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(kWorkspaceBytes));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<uint32_t>(s.x_alignment));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<uint32_t>(s.y_alignment));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<uint32_t>(s.y_alignment));
  cublasLtMatmulHeuristicResult_t found = {};
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle_, plan->product, plan->w, plan->x, plan->y,
                                                               plan->y, preference, 1, &found, &count);
  cublasLtMatmulPreferenceDestroy(preference);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  if (count == 0) return CUBLAS_STATUS_NOT_SUPPORTED;
  plan->algorithm = found.algo;
  return CUBLAS_STATUS_SUCCESS;
}

std::shared_ptr<Gemm::Plan> Gemm::Find(const Shape& shape) {
  if (const auto found = plans_.find(shape); found != plans_.end()) return found->second;
  if (plans_.size() == kMaxPlans) plans_.clear();
  auto plan = std::make_shared<Plan>();
  plan->status = MakePlan(shape, plan.get());
  plans_.emplace(shape, plan);
  return plan;
}

void Gemm::Run(const Product& product) {
  if (product.m == 0) return;
  const Shape shape{.m = product.m,
                    .n = product.n,
                    .k = product.k,
                    .x_stride = product.x_stride,
                    .y_stride = product.y_stride,
                    .w_dtype = product.w_dtype,
                    .y_dtype = product.y_dtype,
                    .accumulate = product.accumulate,
                    .x_alignment = Alignment(product.x),
                    .y_alignment = Alignment(product.y)};
  const std::shared_ptr<Plan> plan = Find(shape);
  if (product.w_dtype == DType::kF8E4M3) {
    plan->Set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, product.w_scales);
    plan->Set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, product.x_scales);
  }
  const float alpha = 1;
  const float beta = product.accumulate ? 1 : 0;
  cublasStatus_t status = plan->status;
  if (status == CUBLAS_STATUS_SUCCESS) {
    status = cublasLtMatmul(handle_, plan->product, &alpha, product.w, plan->w, product.x, plan->x, &beta, product.y,
                            plan->y, product.y, plan->y, &plan->algorithm, workspace_.data(), kWorkspaceBytes,
                            device_->stream());
  }
  if (status == CUBLAS_STATUS_SUCCESS) return;
  device_->Fail({ErrorCode::kInternal,
                 fmt::format("cuBLASLt: product {} x {} x {} of {} to {}: {}", product.m, product.k, product.n,
                             Name(product.w_dtype), Name(product.y_dtype), cublasLtGetStatusString(status))});
}

}  // namespace swiftkv::kernels::cuda
