# The installed tree, which may lie anywhere: bin/swiftkv, share/swiftkv (adapters, which --adapter finds by name, and the
# script that fetches the default model), share/doc/swiftkv. A package also brings the libraries that are no part of glibc or
# GCC, in lib/swiftkv, so that it runs on distributions with others.
set(CMAKE_SKIP_INSTALL_ALL_DEPENDENCY ON)  # tests and benchmarks need not be built for it

# DT_RPATH instead of DT_RUNPATH: it also holds for what the libraries themselves need.
set_target_properties(swiftkv PROPERTIES INSTALL_RPATH "$ORIGIN/../lib/swiftkv")
target_link_options(swiftkv PRIVATE -Wl,--disable-new-dtags)

install(TARGETS swiftkv RUNTIME_DEPENDENCY_SET swiftkv_libraries RUNTIME DESTINATION bin COMPONENT program)
install(RUNTIME_DEPENDENCY_SET swiftkv_libraries
  PRE_EXCLUDE_REGEXES "^ld-linux" "^lib(c|dl|m|pthread|rt|gcc_s|stdc\\+\\+)\\.so"
  LIBRARY DESTINATION lib/swiftkv COMPONENT libraries EXCLUDE_FROM_ALL)
install(DIRECTORY models/ DESTINATION share/swiftkv/models COMPONENT program PATTERN calibration EXCLUDE)
install(PROGRAMS scripts/get-default-model DESTINATION share/swiftkv COMPONENT program)
install(FILES packaging/swiftkv.service DESTINATION share/swiftkv COMPONENT program)
install(FILES README.md LICENSE CHANGELOG.md DESTINATION share/doc/swiftkv COMPONENT program)
install(DIRECTORY docs DESTINATION share/doc/swiftkv COMPONENT program)

set(CPACK_GENERATOR TGZ)
set(CPACK_PACKAGE_FILE_NAME "swiftkv-${PROJECT_VERSION}-linux-x86_64")
set(CPACK_STRIP_FILES ON)
set(CPACK_INSTALL_CMAKE_PROJECTS "${CMAKE_BINARY_DIR};swiftkv;program;/;${CMAKE_BINARY_DIR};swiftkv;libraries;/")
include(CPack)
