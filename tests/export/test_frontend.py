"""The emitted front end says what numpy's integers say, bit for bit, whatever it hears."""

import dataclasses

import numpy as np
import pytest
from sounds import hostile, sounds

from dpsgd_torch.export import toolchain
from dpsgd_torch.export.boards import BOARDS
from dpsgd_torch.export.emulate import available_boards, run_on
from dpsgd_torch.export.frontend import frontend_to_c
from dpsgd_torch.export.frontend.as_model import from_bytes, frontend_as_model, sample_bytes
from dpsgd_torch.export.host import run_many_on_host, run_on_host
from dpsgd_torch.export.toolchain import has
from dpsgd_torch.features.sound import KEYWORDS, MACHINES, Frontend
from dpsgd_torch.features.sound.integers import of_frames
from dpsgd_torch.features.sound.tables import tables

OTHERS = [
    Frontend(frame=480, fft=512, window="hamming", coefficients=13, bits=16, steps=128),
    Frontend(frame=400, hop=160, fft=1024, bands=128, low=300.0, high=8000.0, coefficients=128),
    Frontend(
        frame=2048,
        hop=800,
        fft=2048,
        coefficients=None,
        bits=16,
        steps=512,
        finer=1,
        floor=-60,
        reference=-64,
    ),
    Frontend(frame=128, hop=64, fft=128, bands=10, coefficients=7, floor=-10, reference=-1),
]


def frames_of(frontend, every=8):
    """Frames of all sounds, those first that could make something overflow."""
    waveforms = [*hostile().values(), *sounds().values()]
    return np.concatenate(
        [
            np.lib.stride_tricks.sliding_window_view(waveform, frontend.frame)[
                :: max(2000, frontend.frame // 2 * every)
            ]
            for waveform in waveforms
        ]
    )


def differences(frontends, compiler, sanitize):
    """Features that differ from numpy's, all front ends in one translation unit."""
    if not has("ziglang" if compiler == "zig" else compiler):
        pytest.skip(f"{compiler} is not installed")
    inputs = [frames_of(frontend) for frontend in frontends]
    sources = [
        (frontend_as_model(frontend, f"ear{i}"), sample_bytes(frames))
        for i, (frontend, frames) in enumerate(zip(frontends, inputs, strict=True))
    ]
    found = run_many_on_host(sources, compiler, sanitize)
    return sum(
        int((from_bytes(outputs, frontend) != of_frames(frames, frontend)).sum())
        for frontend, frames, outputs in zip(frontends, inputs, found, strict=True)
    )


@pytest.mark.parametrize("sanitize", [False, True], ids=["plain", "sanitized"])
@pytest.mark.parametrize("compiler", ["gcc", "clang", "zig"])
def test_both_front_ends_equal_numpy_on_this_machine(compiler, sanitize):
    assert differences([KEYWORDS, MACHINES], compiler, sanitize) == 0


def test_other_front_ends_equal_numpy_under_sanitizers():
    assert differences(OTHERS, "gcc" if has("gcc") else "zig", sanitize=True) == 0


@pytest.mark.long
@pytest.mark.parametrize("compiler", ["gcc", "clang", "zig"])
def test_other_front_ends_equal_numpy_with_every_compiler(compiler):
    assert differences(OTHERS, compiler, sanitize=False) == 0


def random_frontend(rng):
    """Any that is not refused."""
    while True:
        fft, bands = int(rng.choice([128, 256, 512, 1024, 2048])), 2 * int(rng.integers(1, 65))
        frame = 2 * int(rng.integers(1, fft // 2 + 1))
        coefficients = None if rng.random() < 0.3 else int(rng.integers(1, bands + 1))
        finer = 1 if coefficients is None else int(rng.integers(1, 5))
        frontend = Frontend(
            fft=fft,
            frame=frame,
            hop=int(rng.integers(1, frame + 1)),
            window=str(rng.choice(["hann", "hamming"])),
            bands=bands,
            low=float(rng.choice([0, 20, 300, 1000])),
            high=float(rng.choice([3000, 4000, 8000])),
            coefficients=coefficients,
            bits=int(rng.choice([8, 16])),
            steps=int(rng.integers(1, 512 // finer + 1)),
            finer=finer,
            floor=int(rng.integers(-60, -9)),
            reference=int(rng.integers(-64, 0)),
        )
        try:
            tables(frontend)
        except ValueError:  # a band between two bins
            continue
        return frontend


@pytest.mark.long
@pytest.mark.parametrize("seed", range(8))
def test_random_front_ends_equal_numpy_under_sanitizers(seed):
    rng = np.random.default_rng(seed)
    frontends = [random_frontend(rng) for _ in range(6)]
    assert differences(frontends, "gcc" if has("gcc") else "zig", sanitize=True) == 0


@pytest.mark.parametrize("frontend", [KEYWORDS, MACHINES], ids=["keywords", "machines"])
@pytest.mark.parametrize(
    "board",
    [
        pytest.param(
            each,
            id=each.name,
            marks=pytest.mark.skipif(
                each not in available_boards(), reason=f"needs {toolchain.needs(each)}"
            ),
        )
        for each in BOARDS
        if each.name in ("unicorn-m4", "microbit", "netduinoplus2", "riscv32-virt")
    ],
)
def test_both_front_ends_equal_numpy_on_boards(board, frontend):
    frames = frames_of(frontend, every=12)
    ran = run_on(board, frontend_as_model(frontend), sample_bytes(frames))
    assert (from_bytes(ran.outputs, frontend) == of_frames(frames, frontend)).all()


def test_one_changed_constant_is_noticed():
    fine = dataclasses.replace(KEYWORDS, bits=16, steps=128)
    frames = frames_of(fine)
    sources = frontend_as_model(fine)
    assert "2147483647," in sources["model.c"]
    sources["model.c"] = sources["model.c"].replace("2147483647,", "2147450879,", 1)
    compiler = "gcc" if has("gcc") else "zig"
    found = from_bytes(run_on_host(sources, sample_bytes(frames), compiler), fine)
    assert (found != of_frames(frames, fine)).any()


@pytest.mark.parametrize("compiler", ["gcc", "zig"])
def test_it_compiles_as_cplusplus(compiler):
    if not has("ziglang" if compiler == "zig" else compiler):
        pytest.skip(f"{compiler} is not installed")
    frames = frames_of(MACHINES)[:20]
    found = run_on_host(frontend_as_model(MACHINES), sample_bytes(frames), compiler, cplusplus=True)
    assert (found == of_frames(frames, MACHINES)).all()


def test_the_c_has_no_float_no_heap_and_no_library():
    for frontend in (KEYWORDS, MACHINES):
        source = frontend_to_c(frontend)["sound.c"]
        for word in ("float", "double", "malloc", "#include <"):
            assert word not in source


@pytest.mark.parametrize("prefix", ["", "Sound", "9ear", "my-ear"])
def test_a_prefix_that_is_no_identifier_is_refused(prefix):
    with pytest.raises(ValueError, match="prefix="):
        frontend_to_c(KEYWORDS, prefix)
