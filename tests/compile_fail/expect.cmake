# cmake -DCOMPILER=c++ -DINCLUDES=dir;dir -DPRECOMPILED=everything.hpp -DSOURCE=file.cpp -P expect.cmake: the source must not
# compile, and the compiler's output must hold the words of each `// expect:` line at the top of the source, in any line
# breaks. Without a source it precompiles the header, which the others then begin with.
cmake_minimum_required(VERSION 3.25)

list(TRANSFORM INCLUDES PREPEND "-I")
set(compile ${COMPILER} -std=c++20 ${INCLUDES})
if(NOT SOURCE)
  execute_process(COMMAND ${compile} -x c++-header ${PRECOMPILED} -o ${PRECOMPILED}.gch COMMAND_ERROR_IS_FATAL ANY)
  return()
endif()
list(APPEND compile -fsyntax-only -include ${PRECOMPILED})

file(STRINGS ${SOURCE} expectations REGEX "^// expect: ")
if(NOT expectations)
  message(FATAL_ERROR "${SOURCE} says nowhere what to expect: begin it with `// expect: words of the compiler`.")
endif()

execute_process(COMMAND ${compile} ${SOURCE} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(result EQUAL 0)
  message(FATAL_ERROR "${SOURCE} compiles, and must not.")
endif()
string(REGEX REPLACE "[ \t\r\n]+" " " words "${output}")
foreach(expectation IN LISTS expectations)
  string(REGEX REPLACE "^// expect: *" "" expectation "${expectation}")
  string(STRIP "${expectation}" expectation)
  string(FIND "${words}" "${expectation}" place)
  if(place EQUAL -1)
    message(FATAL_ERROR "${SOURCE} fails to compile, but without the words\n  ${expectation}\nin\n${output}")
  endif()
endforeach()

file(STRINGS ${SOURCE} twins REGEX "LEGAL_TWIN")
if(twins)
  execute_process(COMMAND ${compile} -DLEGAL_TWIN ${SOURCE}
    RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "The legal twin in ${SOURCE} does not compile:\n${output}")
  endif()
endif()
