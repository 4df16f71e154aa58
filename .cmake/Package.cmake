# cmake --install: headers, library, CMake package and pkg-config file. Nothing in them names the prefix, so the
# installed tree may be moved. A static and a shared build may share a prefix: each brings its own targets file.
# Components: development (headers and package files), static, shared, tools; without --component all that were built.
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/tidemill)
set(pkgconfig_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development
  FILES_MATCHING PATTERN *.hpp PATTERN *.ipp)

foreach(kind IN LISTS kinds)
  install(TARGETS tidemill_${kind} EXPORT tidemill-${kind}
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT ${kind}
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT ${kind} NAMELINK_COMPONENT ${kind})
  install(EXPORT tidemill-${kind} FILE tidemill-${kind}-targets.cmake NAMESPACE tidemill::
    DESTINATION ${package_dir} COMPONENT ${kind})
endforeach()

foreach(name IN LISTS components)
  foreach(kind IN LISTS kinds)
    install(TARGETS tidemill_${name}_${kind} EXPORT tidemill-${name}-${kind}
      ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT ${kind}
      LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT ${kind} NAMELINK_COMPONENT ${kind})
    install(EXPORT tidemill-${name}-${kind} FILE tidemill-${name}-${kind}-targets.cmake NAMESPACE tidemill::
      DESTINATION ${package_dir} COMPONENT ${kind})
  endforeach()
endforeach()

configure_package_config_file(
  ${PROJECT_SOURCE_DIR}/.cmake/tidemillConfig.cmake.in ${PROJECT_BINARY_DIR}/package/tidemillConfig.cmake
  INSTALL_DESTINATION ${package_dir} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(
  ${PROJECT_BINARY_DIR}/package/tidemillConfigVersion.cmake COMPATIBILITY SameMinorVersion)

# From the folder of tidemill.pc up to the prefix, however many levels the library folder has.
file(RELATIVE_PATH pc_to_prefix /prefix/${pkgconfig_dir} /prefix)
string(REGEX REPLACE "/$" "" pc_to_prefix "${pc_to_prefix}")
configure_file(${PROJECT_SOURCE_DIR}/.cmake/tidemill.pc.in ${PROJECT_BINARY_DIR}/package/tidemill.pc @ONLY)

install(FILES
  ${PROJECT_BINARY_DIR}/package/tidemillConfig.cmake ${PROJECT_BINARY_DIR}/package/tidemillConfigVersion.cmake
  ${PROJECT_SOURCE_DIR}/.cmake/FindLibrdkafka.cmake
  DESTINATION ${package_dir} COMPONENT development)
install(FILES ${PROJECT_BINARY_DIR}/package/tidemill.pc DESTINATION ${pkgconfig_dir} COMPONENT development)
if(TIDEMILL_HAS_KAFKA)
  configure_file(
    ${PROJECT_SOURCE_DIR}/.cmake/tidemill-kafka.pc.in ${PROJECT_BINARY_DIR}/package/tidemill-kafka.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/package/tidemill-kafka.pc DESTINATION ${pkgconfig_dir} COMPONENT development)
endif()
