"""An ESP-IDF component, and an example that uses it."""

from __future__ import annotations

from dpsgd_torch.export.targets.package import Library, Package

_LISTS = """
idf_component_register(SRCS "src/@NAME@.c" INCLUDE_DIRS "include")
"""
_MANIFEST = """
version: "@VERSION@"
description: "@TITLE@"
dependencies:
  idf:
    version: ">=5.0"
"""
_PROJECT = """
cmake_minimum_required(VERSION 3.16)
set(EXTRA_COMPONENT_DIRS "${CMAKE_CURRENT_LIST_DIR}/../..")
include($ENV{IDF_PATH}/tools/cmake/project.cmake)
project(@NAME@_classify)
"""
_MAIN_LISTS = """
idf_component_register(SRCS "main.c")
"""


class EspIdf(Package):
    name = "esp-idf"
    about = "an ESP-IDF component: the C, its manifest and an example"
    own_folder = True

    def papers(self, library: Library) -> dict[str, str]:
        return {
            "CMakeLists.txt": _LISTS,
            "idf_component.yml": _MANIFEST,
            "examples/classify/CMakeLists.txt": _PROJECT,
            "examples/classify/main/CMakeLists.txt": _MAIN_LISTS,
        }

    def code(self, library: Library) -> dict[str, str]:
        example = {"examples/classify/main/main.c": library.example()}
        return {**library.c_files("src/", "include/"), **example}
