# What the library itself needs. The installed package repeats the public part (tidemillConfig.cmake.in).

if((CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 12)
   OR (CMAKE_CXX_COMPILER_ID STREQUAL Clang AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 16))
  message(FATAL_ERROR
    "Tidemill needs GCC 12 or Clang 16 or later, and ${CMAKE_CXX_COMPILER} is ${CMAKE_CXX_COMPILER_ID} "
    "${CMAKE_CXX_COMPILER_VERSION}. Name another with -DCMAKE_CXX_COMPILER=...")
endif()

find_package(Boost 1.81 CONFIG QUIET)
if(NOT Boost_FOUND)
  message(FATAL_ERROR
    "Tidemill needs the Boost headers, 1.81 or later, and found none. Install libboost1.81-dev on Debian 12, "
    "libboost-dev on Debian 13 or Ubuntu 24.04, or set Boost_DIR to the folder that holds BoostConfig.cmake.")
endif()

set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

# What components need. Without it they are left out, unless they were asked for by name.
set(TIDEMILL_HAS_KAFKA OFF)
if(TIDEMILL_KAFKA)
  find_package(Librdkafka 2.0 QUIET)
  set(TIDEMILL_HAS_KAFKA ${Librdkafka_FOUND})
  if(NOT Librdkafka_FOUND AND NOT TIDEMILL_KAFKA STREQUAL AUTO)
    message(FATAL_ERROR
      "tidemill::kafka needs librdkafka, 2.0 or later, and found none. Install librdkafka-dev, name its folder with "
      "-DCMAKE_PREFIX_PATH=..., or configure with -DTIDEMILL_KAFKA=OFF.")
  elseif(NOT Librdkafka_FOUND)
    message(STATUS "librdkafka-dev is not installed: no component tidemill::kafka")
  endif()
endif()
