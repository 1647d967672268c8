"""A CMake project: a static library to build, install, find or add as a folder."""

from __future__ import annotations

from dpsgd_torch.export.targets.package import Library, Package

_LISTS = """
cmake_minimum_required(VERSION 3.16)
project(@NAME@ VERSION @VERSION@ LANGUAGES C)
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

add_library(@NAME@ STATIC src/@NAME@.c)
add_library(@NAME@::@NAME@ ALIAS @NAME@)
target_include_directories(@NAME@ PUBLIC
    $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/include>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
set_target_properties(@NAME@ PROPERTIES C_STANDARD 99 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF)

set(@UPPER@_CONFIG ${CMAKE_INSTALL_LIBDIR}/cmake/@NAME@)
install(TARGETS @NAME@ EXPORT @NAME@ ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES include/@NAME@.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES statement.txt DESTINATION ${CMAKE_INSTALL_DATADIR}/@NAME@)
install(EXPORT @NAME@ NAMESPACE @NAME@:: FILE @NAME@Config.cmake DESTINATION ${@UPPER@_CONFIG})
write_basic_package_version_file(@NAME@ConfigVersion.cmake COMPATIBILITY SameMajorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/@NAME@ConfigVersion.cmake DESTINATION ${@UPPER@_CONFIG})

if(CMAKE_SOURCE_DIR STREQUAL CMAKE_CURRENT_SOURCE_DIR AND NOT CMAKE_CROSSCOMPILING)
    add_executable(classify examples/classify.c)
    set_target_properties(classify PROPERTIES C_STANDARD 99)
    target_link_libraries(classify PRIVATE @NAME@)
endif()
"""


class CMake(Package):
    name = "cmake"
    about = "a CMake project: the C as a static library, with its Config.cmake and an example"

    def papers(self, library: Library) -> dict[str, str]:
        return {"CMakeLists.txt": _LISTS}

    def code(self, library: Library) -> dict[str, str]:
        return {**library.c_files("src/", "include/"), "examples/classify.c": library.example()}
