# Flags and tools of our own builds: included when Tidemill is the top-level project, and by nobody else.

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "Build type" FORCE)
endif()
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

# Warnings are errors with the compilers that CI runs; a newer one may warn of more, and that must not stop anybody's build.
add_compile_options(-Wall -Wextra -Wpedantic -Wconversion -Wshadow)
string(REGEX MATCH "^[0-9]+" major ${CMAKE_CXX_COMPILER_VERSION})
if("${CMAKE_CXX_COMPILER_ID} ${major}" MATCHES "^(GNU 12|Clang 16)$")
  add_compile_options(-Werror)
endif()

# Clang's -Wconversion includes this for C++, GCC's does not; what compiles with one should with the other.
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  add_compile_options(-Wno-sign-conversion)
endif()

# GCC spends a tenth of its time on collecting garbage unless it may keep more of it.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  add_compile_options(--param=ggc-min-expand=200 --param=ggc-min-heapsize=1000000)
endif()

# GCC 12 takes the insertion into a std::string, inlined at -O3, for a copy onto itself (GCC bug 105651).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  add_compile_options(-Wno-restrict)
endif()

# Clang's debug builds are large, and its own linker is four times as fast on them.
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  find_program(TIDEMILL_LLD ld.lld-${major})
  mark_as_advanced(TIDEMILL_LLD)
  if(TIDEMILL_LLD)
    add_link_options(-fuse-ld=lld)
  endif()
endif()

if(TIDEMILL_SANITIZE)
  add_compile_options(-fsanitize=${TIDEMILL_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${TIDEMILL_SANITIZE} -fno-sanitize-recover=all)
  # The tests replace operator new, which can only be done beside a shared runtime.
  if(TIDEMILL_SANITIZE MATCHES "thread" AND CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    execute_process(COMMAND ${CMAKE_CXX_COMPILER} -print-runtime-dir
      OUTPUT_VARIABLE runtime OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
    add_link_options(-shared-libsan -Wl,-rpath,${runtime})
  endif()
  # GCC warns of the fences in Asio, which its ThreadSanitizer does not follow.
  if(TIDEMILL_SANITIZE MATCHES "thread" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    add_compile_options(-Wno-tsan)
  endif()
  # With sanitizers GCC 12 sees overflows in std::string, and mismatched deletes in GoogleTest, that are not there.
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    add_compile_options(-Wno-array-bounds -Wno-stringop-overflow -Wno-restrict -Wno-maybe-uninitialized -Wno-mismatched-new-delete)
  endif()
endif()

# The cache is told to look away from the folder of the checkout, so that a second clone is served from the first.
find_program(TIDEMILL_CCACHE ccache)
find_program(TIDEMILL_ENV env)
mark_as_advanced(TIDEMILL_CCACHE TIDEMILL_ENV)
if(TIDEMILL_CCACHE AND TIDEMILL_ENV AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER
    ${TIDEMILL_ENV} CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1
    CCACHE_SLOPPINESS=pch_defines,time_macros ${TIDEMILL_CCACHE})
endif()
