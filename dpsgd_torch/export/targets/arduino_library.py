"""An Arduino library, as one zip for the IDE's Add .ZIP Library."""

from __future__ import annotations

from dpsgd_torch.export.targets.package import Library, Package, library_name

_PROPERTIES = """
name=@NAME@
version=@VERSION@
author=dpsgd_torch
maintainer=dpsgd_torch
sentence=@TITLE@
paragraph=@ABOUT@
category=Data Processing
url=https://example.com
architectures=*
includes=@NAME@.h
"""
_SENSOR = "depends=Arduino_LSM9DS1\n"
_KEYWORDS = """
@NAME@_invoke\tKEYWORD2
@UPPER@_INPUT_SIZE\tLITERAL1
@UPPER@_INPUT_SCALE\tLITERAL1
@UPPER@_INPUT_ZERO_POINT\tLITERAL1
@UPPER@_OUTPUT_SIZE\tLITERAL1
@UPPER@_OUTPUT_SCALE\tLITERAL1
@UPPER@_OUTPUT_ZERO_POINT\tLITERAL1
@UPPER@_LABELS\tLITERAL1
"""


class ArduinoLibrary(Package):
    name = "arduino-library"
    about = "an Arduino library as a zip: the C, and the sketch as its example"

    def archive(self, name: str) -> str:
        return library_name(name)

    def papers(self, library: Library) -> dict[str, str]:
        return {
            "library.properties": _PROPERTIES + (_SENSOR if library.feels_motion else ""),
            "keywords.txt": _KEYWORDS,
        }

    def code(self, library: Library) -> dict[str, str]:
        example = {"examples/classify/classify.ino": library.sketch()}
        return {**library.c_files("src/", "src/"), **example}
