# One CMake target per room (a folder of src/). Link lines are the only way to reach another room's headers'
# implementation; tools/check_rooms.py checks the includes against the same one-way order.

find_package(fmt REQUIRED)
find_package(Threads REQUIRED)

add_library(swiftkv_options INTERFACE)
target_include_directories(swiftkv_options INTERFACE ${PROJECT_SOURCE_DIR}/src)
# The portable baseline: kernels for AVX2, AVX-512 and AMX are compiled per function and chosen at run time.
target_compile_options(swiftkv_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-march=x86-64-v2;-Wall;-Wextra;-Werror;-fno-math-errno>)
target_compile_definitions(swiftkv_options INTERFACE SWIFTKV_VERSION="${PROJECT_VERSION}")
if(SWIFTKV_SANITIZE)
  # Instrumented code confuses g++'s flow analysis into warnings about initialised std::string members.
  target_compile_options(swiftkv_options INTERFACE -fsanitize=${SWIFTKV_SANITIZE} -fno-sanitize-recover=all
    -fno-omit-frame-pointer $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  target_link_options(swiftkv_options INTERFACE -fsanitize=${SWIFTKV_SANITIZE})
endif()
if(SWIFTKV_BUILD_FUZZERS)
  # Clang 14 cannot compile coroutines with this one: "Cannot represent a difference across sections".
  target_compile_options(swiftkv_options INTERFACE -fsanitize=fuzzer-no-link -fno-sanitize=function)
endif()
target_link_libraries(swiftkv_options INTERFACE fmt::fmt Threads::Threads)

# swiftkv_room(NAME SOURCES... [DEPS rooms or libraries...])
function(swiftkv_room name)
  cmake_parse_arguments(ROOM "" "" "SOURCES;DEPS" ${ARGN})
  add_library(swiftkv_${name} STATIC ${ROOM_SOURCES})
  target_link_libraries(swiftkv_${name} PUBLIC swiftkv_options ${ROOM_DEPS})
endfunction()

# swiftkv_room_test(NAME SOURCES... [DEPS...] [LABELS...]): one GoogleTest binary, every test a CTest case.
# Label slow: computes much and allocates little, so sanitizers leave it out.
function(swiftkv_room_test name)
  if(NOT SWIFTKV_BUILD_TESTS)
    return()
  endif()
  find_package(GTest REQUIRED)
  include(GoogleTest)
  cmake_parse_arguments(ROOM "" "" "SOURCES;DEPS;LABELS" ${ARGN})
  add_executable(${name}_test ${ROOM_SOURCES})
  target_link_libraries(${name}_test PRIVATE ${ROOM_DEPS} GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name}_test PRIVATE SWIFTKV_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  target_compile_options(${name}_test PRIVATE $<$<CONFIG:Release>:-O1>)  # they compile longer than they run
  set(labels)
  if(ROOM_LABELS)
    set(labels LABELS ${ROOM_LABELS})
  endif()
  gtest_discover_tests(${name}_test DISCOVERY_MODE PRE_TEST
                       PROPERTIES TIMEOUT 600 ${labels})
endfunction()

# swiftkv_room_bench(NAME SOURCES... [DEPS...]): one Google Benchmark binary; benchmarks report, they never fail.
function(swiftkv_room_bench name)
  if(NOT SWIFTKV_BUILD_TESTS)
    return()
  endif()
  find_package(benchmark REQUIRED)
  cmake_parse_arguments(ROOM "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name}_bench ${ROOM_SOURCES})
  target_link_libraries(${name}_bench PRIVATE ${ROOM_DEPS} benchmark::benchmark_main)
endfunction()

# swiftkv_fuzzer(NAME SOURCE [DEPS...]): a libFuzzer target, built by the fuzz preset only.
function(swiftkv_fuzzer name source)
  if(NOT SWIFTKV_BUILD_FUZZERS)
    return()
  endif()
  add_executable(fuzz_${name} ${source})
  target_link_libraries(fuzz_${name} PRIVATE ${ARGN})
  target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
endfunction()
