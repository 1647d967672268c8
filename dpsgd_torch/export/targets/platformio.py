"""A PlatformIO project whose folder is a PlatformIO library, too."""

from __future__ import annotations

import json

from dpsgd_torch.export.targets.package import VERSION, Library, Package

_PROJECT = """
[platformio]
default_envs = nano33ble

[env:nano33ble]
platform = nordicnrf52
board = nano33ble
framework = arduino
monitor_speed = @SPEED@
"""
_SENSOR = "lib_deps = arduino-libraries/Arduino_LSM9DS1\n"


class PlatformIO(Package):
    name = "platformio"
    about = "a PlatformIO project and library: the C, and a sketch as its main.cpp"

    def papers(self, library: Library) -> dict[str, str]:
        motion = library.feels_motion
        project = _PROJECT.replace("@SPEED@", "9600" if motion else "115200")
        return {
            "platformio.ini": project + (_SENSOR if motion else ""),
            "library.json": json.dumps(_manifest(library), indent=2) + "\n",
        }

    def code(self, library: Library) -> dict[str, str]:
        main = f"#include <Arduino.h>\n\n{library.sketch()}"
        return {**library.c_files("src/", "include/"), "src/main.cpp": main}


def _manifest(library: Library) -> dict[str, object]:
    return {
        "name": library.name,
        "version": VERSION,
        "description": " ".join(library.about),
        "keywords": ["neural network", "int8", "inference"],
        "headers": f"{library.name}.h",
        "frameworks": "*",
        "platforms": "*",
        "build": {"includeDir": "include", "srcDir": "src", "srcFilter": ["+<*>", "-<main.cpp>"]},
    }
