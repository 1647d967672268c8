"""Arduino sketches compiled for this machine, against stand-ins for board and sensors."""

import shutil
import subprocess

import pytest

BOARD = r"""
#pragma once
#include <cstdio>
#include <cstdlib>
struct Port {
    void begin(long) {}
    explicit operator bool() const { return true; }
    bool operator!() const { return false; }
    void print(const char *text) { std::printf("%s", text); }
    void println(const char *text) { std::printf("%s\n", text); }
    void println(float value, int digits) { std::printf("%.*f\n", digits, (double)value); }
    void print(float value, int digits) { std::printf("%.*f", digits, (double)value); }
    void print(long value) { std::printf("%ld", value); }
    void println(long value) { std::printf("%ld\n", value); }
    int read() { int c = std::getchar(); if (c == EOF) std::exit(0); return c; }
} Serial;
[[maybe_unused]] static unsigned long micros() { static unsigned long now; return now += PACE; }
[[maybe_unused]] static void noInterrupts() {}
[[maybe_unused]] static void interrupts() {}
"""
SENSOR = r"""
#include <cstdio>
#include <cstdlib>
struct Sensor {
    float row[6];
    bool fresh = false;
    bool begin() { return true; }
    float accelerationSampleRate() { return 119.0f; }
    bool next() {
        if (fresh) return true;
        for (float &value : row) if (std::scanf("%f", &value) != 1) std::exit(0);
        return fresh = true;
    }
    int accelerationAvailable() { return next(); }
    int gyroscopeAvailable() { return next(); }
    void readAcceleration(float &x, float &y, float &z) {
        next();
        x = row[0]; y = row[1]; z = row[2];
        fresh = !RESTING; /* who waits reads no gyroscope, and time goes on all the same */
    }
    void readGyroscope(float &x, float &y, float &z) {
        x = row[3]; y = row[4]; z = row[5];
        fresh = false;
    }
} IMU;
"""
MICROPHONE = r"""
#include <cstdint>
#include <cstdio>
#include <cstdlib>
struct Microphone {
    void (*heard)() = nullptr;
    int16_t block[256];
    int ready = 0;
    void onReceive(void (*call)()) { heard = call; }
    bool begin(int channels, long rate) { return channels == 1 && rate == 16000; }
    int available() { return 2 * ready; }
    int read(int16_t *to, int bytes) {
        for (int i = 0; i < bytes / 2; ++i) to[i] = block[i];
        ready = 0;
        return bytes;
    }
    void hear() {
        ready = (int)std::fread(block, 2, 256, stdin);
        if (ready == 0) std::exit(0);
        heard();
    }
} PDM;
"""
MAIN = r"""
#include "Arduino.h"
#include "SKETCH"
int main() { setup(); for (;;) { BETWEEN; loop(); } }
"""

needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="g++ is not installed")


def build(folder, texts, name, *, resting=0, between="", pace=0):
    """``between``: rounds of the loop; ``pace``: microseconds that a look at the clock takes."""
    for file, text in texts.items():
        (folder / file).write_text(text)
    sources = [file for file in texts if file.endswith(".c")]
    return built(folder, f"{name}.ino", sources, ".", resting, between, pace)


def built(folder, sketch, sources, headers, resting=0, between="", pace=0):
    """The sketch and the model's C, as they lie in the folder, with a board: a program."""
    board = folder / "board"
    board.mkdir()
    stand_ins = {"Arduino.h": BOARD, "Arduino_LSM9DS1.h": SENSOR, "PDM.h": MICROPHONE}
    stand_ins["main.cpp"] = MAIN.replace("SKETCH", sketch).replace("BETWEEN", between)
    for name, text in stand_ins.items():
        (board / name).write_text(text)
    strict = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-O1"]
    paths = [f"-I{headers}", "-Iboard", "-I."]
    objects = [f"board/{number}.o" for number in range(len(sources))]
    for source, made in zip(sources, objects, strict=True):
        command = ["gcc", "-std=c99", *strict, *paths, "-c", source, "-o", made]
        subprocess.run(command, cwd=folder, check=True)
    told = [f"-DRESTING={resting}", f"-DPACE={pace}"]
    command = ["g++", "-std=c++17", *strict, *told, *paths, "board/main.cpp", *objects]
    subprocess.run([*command, "-o", "board/sketch"], cwd=folder, check=True)
    return board / "sketch"


def said_by(sketch, fed):
    """Lines that the sketch prints until its input ends."""
    ended = subprocess.run([sketch], input=fed, capture_output=True, timeout=60, check=True)
    return ended.stdout.decode().splitlines()
