"""A Zephyr module, and a sample that uses it."""

from __future__ import annotations

from dpsgd_torch.export.targets.package import Library, Package

_MODULE = """
name: @NAME@
build:
  cmake: .
  kconfig: Kconfig
samples:
  - samples
"""
_LISTS = """
if(CONFIG_@UPPER@)
  zephyr_library_named(@NAME@)
  zephyr_library_sources(src/@NAME@.c)
  zephyr_include_directories(include)
endif()
"""
_KCONFIG = """
config @UPPER@
\tbool "@NAME@"
\thelp
\t  @TITLE@
"""
_SAMPLE_LISTS = """
cmake_minimum_required(VERSION 3.20.0)
list(APPEND ZEPHYR_EXTRA_MODULES ${CMAKE_CURRENT_SOURCE_DIR}/../..)
find_package(Zephyr REQUIRED HINTS $ENV{ZEPHYR_BASE})
project(@NAME@_classify C)

target_sources(app PRIVATE src/main.c)
"""
_PRJ = """
CONFIG_@UPPER@=y
CONFIG_CONSOLE=y
CONFIG_STDOUT_CONSOLE=y
"""
_TWISTER = """
sample:
  name: @NAME@
  description: "@TITLE@"
tests:
  sample.@NAME@.classify:
    build_only: true
"""


class Zephyr(Package):
    name = "zephyr"
    about = "a Zephyr module: the C, Kconfig and a sample"

    def papers(self, library: Library) -> dict[str, str]:
        return {
            "zephyr/module.yml": _MODULE,
            "CMakeLists.txt": _LISTS,
            "Kconfig": _KCONFIG,
            "samples/classify/CMakeLists.txt": _SAMPLE_LISTS,
            "samples/classify/prj.conf": _PRJ,
            "samples/classify/sample.yaml": _TWISTER,
        }

    def code(self, library: Library) -> dict[str, str]:
        example = {"samples/classify/src/main.c": library.example()}
        return {**library.c_files("src/", "include/"), **example}
