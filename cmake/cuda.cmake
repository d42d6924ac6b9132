# CUDA 13: the compiler, cuBLASLt and the runtime, from $CUDA_HOME, where `scripts/setup --cuda` puts them, /usr/local/cuda
# or $PATH: the first that is not older. Tests and programs run without a GPU, too, and then say so.

set(SWIFTKV_CUDA_ARCHITECTURES "80-real;89-real;90a-real;100-real" CACHE STRING "Of the GPUs, as CMAKE_CUDA_ARCHITECTURES")

set(roots $ENV{CUDA_HOME})
if(DEFINED ENV{SWIFTKV_HOME})
  list(APPEND roots $ENV{SWIFTKV_HOME}/cuda-13.0/nvidia/cu13)
endif()
list(APPEND roots $ENV{HOME}/.cache/swiftkv/cuda-13.0/nvidia/cu13 /usr/local/cuda)
function(swiftkv_is_cuda_13 result nvcc)
  execute_process(COMMAND ${nvcc} --version OUTPUT_VARIABLE version ERROR_QUIET)
  if(NOT version MATCHES "release ([0-9]+)" OR CMAKE_MATCH_1 LESS 13)
    set(${result} FALSE PARENT_SCOPE)
    set_property(GLOBAL APPEND PROPERTY SWIFTKV_OLDER_NVCC ${nvcc})
  endif()
endfunction()
find_program(SWIFTKV_NVCC nvcc HINTS ${roots} PATH_SUFFIXES bin VALIDATOR swiftkv_is_cuda_13)
if(NOT SWIFTKV_NVCC)
  get_property(older GLOBAL PROPERTY SWIFTKV_OLDER_NVCC)
  message(FATAL_ERROR "nvcc of CUDA 13 or above is not there (older: ${older}); `scripts/setup --cuda` installs it, or set CUDA_HOME=")
endif()
set(CMAKE_CUDA_COMPILER ${SWIFTKV_NVCC})
set(CMAKE_CUDA_ARCHITECTURES ${SWIFTKV_CUDA_ARCHITECTURES})
if(CCACHE)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
endif()
enable_language(CUDA)
# CMake 3.25 does not know by itself that CUDA 13 has C++20.
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")

get_filename_component(cuda_root ${SWIFTKV_NVCC} REALPATH)
get_filename_component(cuda_root ${cuda_root} DIRECTORY)
get_filename_component(cuda_root ${cuda_root} DIRECTORY)
# From nowhere else: another version's would be mixed in.
find_library(SWIFTKV_CUBLASLT NAMES cublasLt libcublasLt.so.13 NAMES_PER_DIR PATHS ${cuda_root} PATH_SUFFIXES lib64 lib
             REQUIRED NO_DEFAULT_PATH)
find_library(SWIFTKV_CUDART NAMES libcudart_static.a PATHS ${cuda_root} PATH_SUFFIXES lib64 lib REQUIRED NO_DEFAULT_PATH)
find_path(SWIFTKV_CUDA_INCLUDE cublasLt.h PATHS ${cuda_root} PATH_SUFFIXES include REQUIRED NO_DEFAULT_PATH)

add_library(swiftkv_cuda INTERFACE)
target_include_directories(swiftkv_cuda SYSTEM INTERFACE ${SWIFTKV_CUDA_INCLUDE})
target_link_libraries(swiftkv_cuda INTERFACE ${SWIFTKV_CUBLASLT} ${SWIFTKV_CUDART} ${CMAKE_DL_LIBS} rt)
