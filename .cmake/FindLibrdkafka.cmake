# Librdkafka::librdkafka, the C client of Kafka, 2.0 or later. Installed with the package, for programs that use tidemill::kafka.
find_path(Librdkafka_INCLUDE_DIR librdkafka/rdkafka.h)
find_library(Librdkafka_LIBRARY rdkafka)
mark_as_advanced(Librdkafka_INCLUDE_DIR Librdkafka_LIBRARY)

set(Librdkafka_VERSION "")
if(Librdkafka_INCLUDE_DIR)
  # #define RD_KAFKA_VERSION 0xMMmmrrpp
  file(STRINGS ${Librdkafka_INCLUDE_DIR}/librdkafka/rdkafka.h line REGEX "^#define RD_KAFKA_VERSION ")
  if(line MATCHES "0x(..)(..)(..)")
    math(EXPR major "0x${CMAKE_MATCH_1}")
    math(EXPR minor "0x${CMAKE_MATCH_2}")
    math(EXPR patch "0x${CMAKE_MATCH_3}")
    set(Librdkafka_VERSION ${major}.${minor}.${patch})
  endif()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Librdkafka
  REQUIRED_VARS Librdkafka_LIBRARY Librdkafka_INCLUDE_DIR VERSION_VAR Librdkafka_VERSION)

if(Librdkafka_FOUND AND NOT TARGET Librdkafka::librdkafka)
  add_library(Librdkafka::librdkafka UNKNOWN IMPORTED)
  set_target_properties(Librdkafka::librdkafka PROPERTIES
    IMPORTED_LOCATION ${Librdkafka_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES ${Librdkafka_INCLUDE_DIR})
endif()
