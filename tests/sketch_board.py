"""What a board gives to a sketch (Serial, IMU, setup and loop), standing in on this machine."""

import subprocess

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
    int read() { int c = std::getchar(); if (c == EOF) std::exit(0); return c; }
} Serial;
"""
SENSOR = r"""
#include <cstdio>
#include <cstdlib>
struct Sensor {
    float row[6];
    bool fresh = false;
    bool begin() { return true; }
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
MAIN = r"""
#include "Arduino.h"
#include "SKETCH"
int main() { setup(); for (;;) loop(); }
"""

_STRICT = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"]


def built(folder, sketch, model, headers, resting=0):
    """The sketch and the model's C, as they lie in the folder, with a board: a program."""
    board = folder / "board"
    board.mkdir()
    for name, text in {"Arduino.h": BOARD, "Arduino_LSM9DS1.h": SENSOR}.items():
        (board / name).write_text(text)
    (board / "main.cpp").write_text(MAIN.replace("SKETCH", sketch))
    paths = [f"-I{headers}", "-Iboard", "-I."]
    c = ["gcc", "-std=c99", *_STRICT, "-O1", *paths, "-c", model, "-o", "board/model.o"]
    subprocess.run(c, cwd=folder, check=True)
    flags = ["-std=c++17", *_STRICT, "-O1", f"-DRESTING={resting}", *paths]
    command = ["g++", *flags, "board/main.cpp", "board/model.o", "-o", "board/sketch"]
    subprocess.run(command, cwd=folder, check=True)
    return board / "sketch"


def said_by(sketch, fed):
    """Lines that the sketch prints until its input ends."""
    ended = subprocess.run([sketch], input=fed, capture_output=True, timeout=60, check=True)
    return ended.stdout.decode().splitlines()
