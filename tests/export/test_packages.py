"""C in packages of build systems: every file is parsed, compiled where it lies, and run."""

import configparser
import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
import zipfile

import numpy as np
import pytest
import torch
import yaml
from sketches import built, said_by
from torch import nn

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export import export_model
from dpsgd_torch.export.__main__ import main as export
from dpsgd_torch.export.archive import zipped
from dpsgd_torch.export.compiler import compile_model
from dpsgd_torch.export.declared import Declared
from dpsgd_torch.export.deliver import write_files
from dpsgd_torch.export.footprint import estimate
from dpsgd_torch.export.reference import run
from dpsgd_torch.export.subject import Subject
from dpsgd_torch.export.targets.package import library_name
from dpsgd_torch.export.targets.registry import TARGETS
from dpsgd_torch.export.to_onnx import to_onnx

LABELS = ('say "hé"?', "漢\\ */ ??/", "%s ${HOME} @NAME@")
EVIL = "*/ ${HOME} $(shell,touch evil) ]] @NAME@ ;#\"'\\ ü: {a: [%s]}"
TOLD = {"run": EVIL, "epsilon": "at most 3.0000", "weights_sha256": "c0ffee"}
PACKAGES = [name for name, kind in TARGETS.items() if kind.library]
needs_gcc = pytest.mark.skipif(not shutil.which("g++"), reason="g++ is not installed")
needs_cmake = pytest.mark.skipif(not shutil.which("cmake"), reason="cmake is not installed")


def compiled(shape, seed=0):
    """(subject, program) of a network whose outputs differ on a ramp."""
    size = int(np.prod(shape))
    model = nn.Sequential(nn.Flatten(), nn.Linear(size, 5), nn.ReLU(), nn.Linear(5, 3))
    for number, parameter in enumerate(model.parameters()):
        generator = torch.Generator().manual_seed(seed + number)
        nn.init.uniform_(parameter, -0.5, 0.5, generator=generator)
    graph = to_onnx(model.eval(), shape, {})
    program = compile_model(graph, input_range=(-2.0, 1.0), labels=LABELS)
    program = dataclasses.replace(program, provenance=TOLD)
    return Subject(graph, model, Declared(shape, (-2.0, 1.0), LABELS), TOLD), program


@pytest.fixture(scope="module")
def serial():
    return compiled((3, 4))


@pytest.fixture(scope="module")
def motion():
    return compiled((714,))


def lying(made, to, folder):
    """The folder with the package's files, unpacked where they come as an archive."""
    subject, program = made
    files = TARGETS[to].files(subject, program, "Wave 1")
    write_files(folder, {**files, "statement.txt": b"covered\n"})
    return folder


def answer(program):
    """What the integers say of the ramp that the example feeds."""
    size = program.input.size
    part = np.arange(size, dtype=np.float32) / np.float32(size)
    ramp = np.float32(-2) + np.float32(3) * part
    outputs = run(program, program.quantize(ramp.reshape(1, *program.input.shape)))
    return program.labels[int(outputs.reshape(-1).argmax())]


def lines(*command, cwd, **more):
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, **more)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout.splitlines()


def properties(text):
    """library.properties, as its specification reads it."""
    rows = [row for row in text.splitlines() if row and not row.startswith("#")]
    return dict(row.split("=", 1) for row in rows)


def parsed(path):
    """What a file says, by the parser of its kind; None where only a compiler can tell."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return json.loads(text)
    if path.suffix in (".yml", ".yaml"):
        return yaml.safe_load(text)
    if path.suffix == ".ini":
        ini = configparser.ConfigParser(interpolation=None)
        ini.read_string(text)
        return {section: dict(ini[section]) for section in ini.sections()}
    if path.suffix in (".properties", ".conf"):
        return properties(text)
    return None


@pytest.mark.parametrize("to", PACKAGES)
def test_every_file_says_where_it_comes_from_and_no_name_leaves_its_comment(tmp_path, serial, to):
    folder, plain = lying(serial, to, tmp_path / "a"), tmp_path / "b"
    subject, program = serial
    lying((subject, dataclasses.replace(program, provenance={})), to, plain)
    for path in folder.rglob("*.*"):
        if path.name in ("statement.txt", "wave_1_model.c"):
            continue
        text = path.read_text()
        assert "epsilon: at most 3.0000" in text, path
        assert "c0ffee" in text
        assert text.isascii()
        if path.name == "library.json":
            assert parsed(path)["description"].count("c0ffee") == 1
        elif path.name == "library.properties":
            assert parsed(path).keys() == parsed(plain / path.name).keys()
        else:  # beside comments, the text is the same without any name
            other = (plain / path.relative_to(folder)).read_text()
            assert parsed(path) == parsed(plain / path.relative_to(folder))
            kept = [line for line in text.splitlines() if line not in other.splitlines()]
            assert all(
                line.startswith(("# ", "; ", " * ", "/* wave_1_model: ")) for line in kept
            ), kept


def test_an_arduino_library_has_what_its_specification_asks_for(tmp_path, motion):
    folder = lying(motion, "arduino-library", tmp_path)
    facts = parsed(folder / "library.properties")
    assert [key for key, value in facts.items() if not value] == []
    asked = "name version author maintainer sentence paragraph category url architectures"
    assert facts.keys() >= set(asked.split())
    assert facts["name"] == "wave_1_model"
    assert facts["category"] in ("Data Processing", "Other")
    assert facts["depends"] == "Arduino_LSM9DS1"
    assert re.fullmatch(r"\d+\.\d+\.\d+", facts["version"])
    assert (folder / "src" / facts["includes"]).exists()
    header = (folder / "src" / facts["includes"]).read_text()
    rows = [row for row in (folder / "keywords.txt").read_text().splitlines() if "\t" in row]
    assert len(rows) > 5
    for row in rows:
        word, kind = row.split("\t")
        assert kind == ("LITERAL1" if word.isupper() else "KEYWORD2")
        assert re.search(rf"\b{word}\b", header), word


def test_manifests_name_files_that_are_there(tmp_path, serial):
    folder = lying(serial, "platformio", tmp_path / "pio")
    library = parsed(folder / "library.json")
    assert library["name"] == "wave_1_model"
    assert (folder / library["build"]["includeDir"] / library["headers"]).exists()
    assert f"-<{(folder / 'src' / 'main.cpp').name}>" in library["build"]["srcFilter"]
    assert parsed(folder / "platformio.ini")["env:nano33ble"]["framework"] == "arduino"
    folder = lying(serial, "zephyr", tmp_path / "zephyr")
    module = parsed(folder / "zephyr" / "module.yml")
    assert module["name"] == "wave_1_model"
    assert (folder / module["build"]["cmake"] / "CMakeLists.txt").exists()
    assert (folder / module["build"]["kconfig"]).exists()
    assert all((folder / sample).is_dir() for sample in module["samples"])
    symbol = re.search(r"^config (\w+)$", (folder / "Kconfig").read_text(), re.MULTILINE)[1]
    assert parsed(folder / "samples" / "classify" / "prj.conf")[f"CONFIG_{symbol}"] == "y"
    assert f"if(CONFIG_{symbol})" in (folder / "CMakeLists.txt").read_text()
    folder = lying(serial, "esp-idf", tmp_path / "esp")
    component = parsed(folder / "idf_component.yml")
    assert component["version"] == "1.0.0"
    assert component["dependencies"] == {"idf": {"version": ">=5.0"}}


@needs_gcc
@pytest.mark.parametrize("kind", ["serial", "motion"])
@pytest.mark.parametrize(
    ("to", "sketch", "headers"),
    [("arduino-library", "examples/classify/classify.ino", "src"),
     ("platformio", "src/main.cpp", "include")],
)  # fmt: skip
def test_a_sketch_of_a_package_says_what_the_integers_say(
    tmp_path, request, kind, to, sketch, headers
):
    made = request.getfixturevalue(kind)
    folder = lying(made, to, tmp_path)
    program = built(folder, sketch, ["src/wave_1_model.c"], headers)
    if kind == "motion":
        assert said_by(program, b"") == ["move!"]
        return
    pixels = np.random.default_rng(0).integers(0, 256, (20, 3, 4), dtype=np.uint8)
    values = np.float32(-2) + np.float32(3) * (pixels.astype(np.float32) / np.float32(255))
    answers = run(made[1], made[1].quantize(values)).reshape(20, -1).argmax(axis=1)
    assert said_by(program, pixels.tobytes()) == [LABELS[best] for best in answers]
    assert len(set(answers)) > 1


@needs_gcc
@needs_cmake
def test_a_cmake_project_builds_installs_and_is_found(tmp_path, serial):
    folder, build, installed = (tmp_path / name for name in ("lib", "build", "installed"))
    lying(serial, "cmake", folder)
    flags = "-DCMAKE_C_FLAGS=-Wall -Wextra -Wconversion -Werror -pedantic"
    lines("cmake", "-S", folder, "-B", build, flags, cwd=tmp_path)
    lines("cmake", "--build", build, cwd=tmp_path)
    assert lines(build / "classify", cwd=tmp_path) == [answer(serial[1])]
    lines("cmake", "--install", build, "--prefix", installed, cwd=tmp_path)
    assert list(installed.rglob("statement.txt"))
    user = tmp_path / "user"
    user.mkdir()
    shutil.copy(folder / "examples" / "classify.c", user)
    (user / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(user C)\n"
        "find_package(wave_1_model 1.0 REQUIRED)\nadd_executable(user classify.c)\n"
        "target_link_libraries(user PRIVATE wave_1_model::wave_1_model)\n"
    )
    lines("cmake", "-S", user, "-B", user / "b", f"-DCMAKE_PREFIX_PATH={installed}", cwd=user)
    lines("cmake", "--build", user / "b", cwd=user)
    assert lines(user / "b" / "user", cwd=user) == [answer(serial[1])]


ZEPHYR = """
project(Zephyr-Kernel C)
file(STRINGS prj.conf symbols REGEX "^CONFIG_[A-Z0-9_]+=y$")
foreach(symbol IN LISTS symbols)
  string(REPLACE "=y" "" symbol ${symbol})
  set(${symbol} y)
endforeach()
add_executable(app)
macro(zephyr_library_named name)
  set(library ${name})
  add_library(${name} STATIC)
  target_link_libraries(app PRIVATE ${name})
endmacro()
macro(zephyr_library_sources)
  target_sources(${library} PRIVATE ${ARGN})
endmacro()
macro(zephyr_include_directories name)
  target_include_directories(${library} PUBLIC ${CMAKE_CURRENT_SOURCE_DIR}/${name})
endmacro()
foreach(module IN LISTS ZEPHYR_EXTRA_MODULES)
  add_subdirectory(${module} ${CMAKE_BINARY_DIR}/module)
endforeach()
"""
IDF = """
add_compile_definitions(ESP_PLATFORM)
macro(project name)
  _project(${name} C)
  file(WRITE ${CMAKE_BINARY_DIR}/start.c
       "void app_main(void); int main(void) { app_main(); return 0; }")
  add_executable(app ${CMAKE_BINARY_DIR}/start.c)
  foreach(component ${EXTRA_COMPONENT_DIRS} ${CMAKE_CURRENT_SOURCE_DIR}/main)
    get_filename_component(last ${component} NAME)
    add_subdirectory(${component} ${CMAKE_BINARY_DIR}/of_${last})
  endforeach()
endmacro()
function(idf_component_register)
  cmake_parse_arguments(given "" "" "SRCS;INCLUDE_DIRS" ${ARGN})
  foreach(file ${given_SRCS})
    target_sources(app PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/${file})
  endforeach()
  foreach(name ${given_INCLUDE_DIRS})
    target_include_directories(app PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/${name})
  endforeach()
endfunction()
"""


@needs_gcc
@needs_cmake
@pytest.mark.parametrize(
    ("to", "sample", "system", "text"),
    [("zephyr", "samples/classify", "ZephyrConfig.cmake", ZEPHYR),
     ("esp-idf", "examples/classify", "tools/cmake/project.cmake", IDF)],
)  # fmt: skip
def test_a_sample_builds_with_its_module_against_a_stand_in_of_the_system(
    tmp_path, serial, to, sample, system, text
):
    folder = lying(serial, to, tmp_path / "module")
    base = tmp_path / "base"
    (base / system).parent.mkdir(parents=True)
    (base / system).write_text(text)
    there = {**os.environ, "ZEPHYR_BASE": str(base), "IDF_PATH": str(base)}
    lines("cmake", "-S", folder / sample, "-B", tmp_path / "b", cwd=tmp_path, env=there)
    lines("cmake", "--build", tmp_path / "b", cwd=tmp_path)
    assert lines(tmp_path / "b" / "app", cwd=tmp_path) == [answer(serial[1])]


def test_a_zip_holds_one_folder_with_its_statement_and_the_same_bytes_again(tmp_path, monkeypatch):
    monkeypatch.setattr("dpsgd_torch.export.deliver.footprint", estimate)
    model = nn.Linear(4, 2)
    contents = []
    for out in (tmp_path / "a" / "wave", tmp_path / "b" / "wave"):
        done = export_model(
            model, input_shape=(4,), input_range=(0, 1), to="arduino-library", out=out
        )
        assert done.names == ("wave_model.zip",)
        contents.append((out / "wave_model.zip").read_bytes())
    assert contents[0] == contents[1]
    archive = zipfile.ZipFile(io.BytesIO(contents[0]))
    names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"wave_model"}
    statement = archive.read("wave_model/statement.txt").decode()
    assert statement == (tmp_path / "a" / "wave" / "statement.txt").read_text()
    assert "Exported: wave_model.zip." in statement
    assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert contents[0] != zipped({"a": b""}, "wave_model")


@pytest.mark.parametrize(
    ("name", "library"),
    [("wave", "wave_model"), ("Größe 7", "groe_7_model"), ("7-3", "run_7_3_model"),
     ("model", "model"), ("my_model", "my_model"), ("stdio", "stdio_model"), ("*/x", "x_model"),
     ("a" * 57, "a" * 57 + "_model")],
)  # fmt: skip
def test_a_library_is_called_like_its_folder(name, library):
    assert library_name(name) == library
    assert library_name(library_name(name)) == library_name(name)


@pytest.mark.parametrize("name", ["", "..", "漢字", "a\nb", "x\x1b[2J", "\udce9a", "*/", "a" * 58])
def test_a_name_of_which_no_library_can_be_made_is_refused(name):
    with pytest.raises(ExportError, match=r"^name = .* a library is called like its") as told:
        library_name(name)
    assert str(told.value).isprintable()


def test_nothing_is_written_for_a_folder_of_which_no_library_can_be_made(tmp_path):
    out = tmp_path / "漢字"
    with pytest.raises(ExportError, match="a library is called like its folder"):
        export_model(nn.Linear(4, 2), input_shape=(4,), input_range=(0, 1), to="cmake", out=out)
    assert not out.exists()


def test_float32_is_refused_by_the_name_of_the_package(capsys):
    assert export(["nowhere", "--to", "esp-idf", "--no-int8"]) == 2
    assert "esp-idf is in integers only" in capsys.readouterr().err
