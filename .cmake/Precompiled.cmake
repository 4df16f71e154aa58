# tidemill_precompile(<name> HEADERS <header>... [LINKS <library>...]): headers that are parsed once, for the executables that
# say target_precompile_headers(<target> REUSE_FROM <name>).

# What ccache needs to see through a precompiled header.
if(CMAKE_CXX_COMPILER_ID STREQUAL Clang)
  add_compile_options("SHELL:-Xclang -fno-pch-timestamp")
elseif(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  add_compile_options(-fpch-preprocess)
endif()

function(tidemill_precompile name)
  cmake_parse_arguments(PARSE_ARGV 1 part "" "" "HEADERS;LINKS")
  file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/${name}.cpp CONTENT "")
  add_library(${name} OBJECT ${CMAKE_CURRENT_BINARY_DIR}/${name}.cpp)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/include)
  target_link_libraries(${name} PRIVATE ${part_LINKS} Boost::headers Threads::Threads)
  target_compile_features(${name} PRIVATE cxx_std_20)
  set_target_properties(${name} PROPERTIES CXX_EXTENSIONS OFF POSITION_INDEPENDENT_CODE OFF)
  target_precompile_headers(${name} PRIVATE ${part_HEADERS})
endfunction()
