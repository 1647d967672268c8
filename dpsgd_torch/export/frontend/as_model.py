"""Front ends and streams dressed as models, so that whatever runs and counts models does them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.export.c_text import with_prefix
from dpsgd_torch.export.frontend.stream import Stream, stream_to_c
from dpsgd_torch.export.frontend.to_c import frontend_to_c
from dpsgd_torch.export.program import Program
from dpsgd_torch.features.sound.frontend import Frontend

CALL = "    model_features(samples, features);\n"
"""In the source made with the prefix ``model``: without it, what remains is the harness."""

_DECLARED = """
#define MODEL_INPUT_SIZE {input_size}
#define MODEL_OUTPUT_SIZE {output_size}
#ifdef __cplusplus
extern "C"
#endif
void model_invoke(const int8_t *input, int8_t *output);
"""

_SAMPLES = """    for (i = 0; i < COUNT; ++i) { /* bytes of any alignment, the lower one first */
        samples[i] = (int16_t)(input[2 * i + 1] * 256 + (uint8_t)input[2 * i]);
    }
"""

_FEATURES = f"""
void model_invoke(const int8_t *input, int8_t *output)
{{
    static int16_t samples[MODEL_FRAME];
    static model_feature features[MODEL_FEATURES];
    uint32_t i;
{_SAMPLES.replace("COUNT", "MODEL_FRAME")}{CALL}    for (i = 0; i < MODEL_OUTPUT_SIZE; ++i) {{
        output[i] = (int8_t)(features[i / sizeof features[0]] >> (8 * (i % sizeof features[0])));
    }}
}}
"""

_SOUND = f"""
void stream_invoke(const int8_t *input, int8_t *output)
{{
    static int16_t samples[MODEL_EVERY];
    uint32_t i;
{_SAMPLES.replace("COUNT", "MODEL_EVERY")}    model_push(samples, MODEL_EVERY, output);
}}
"""

_ROWS = """
void stream_invoke(const int8_t *input, int8_t *output)
{
    model_push(input, MODEL_EVERY, output);
}
"""


def frontend_as_model(frontend: Frontend, prefix: str = "model") -> dict[str, str]:
    """Sources as ``to_c`` makes them; an input is a frame's bytes, an output its features'."""
    sources = frontend_to_c(frontend, prefix)
    declared = _DECLARED.format(
        input_size=2 * frontend.frame, output_size=frontend.features * frontend.bits // 8
    )
    return {
        f"{prefix}.c": sources[f"{prefix}.c"] + with_prefix(_FEATURES, prefix),
        f"{prefix}.h": sources[f"{prefix}.h"] + with_prefix(declared, prefix),
    }


def stream_as_model(program: Program, stream: Stream) -> dict[str, str]:
    """The same for a stream: an input is ``every`` samples, an output what was last answered."""
    texts = stream_to_c(program, stream)
    names = [name for name in ("model", "sound", "model_stream") if f"{name}.c" in texts]
    declared = _DECLARED.format(
        input_size=stream.every * (2 if stream.frontend else stream.channels),
        output_size=program.output.size,
    )
    header = "\n".join(texts[f"{name}.h"] for name in names)
    source = "\n".join(texts[f"{name}.c"] for name in names)
    for name in names:
        header = header.replace(f'#include "{name}.h"\n', "")
        source = source.replace(f'#include "{name}.h"\n', "")
    source += _SOUND if stream.frontend else _ROWS
    return {
        "stream.c": f'#include "stream.h"\n{source}',
        "stream.h": header + with_prefix(declared, "stream"),
    }


def sample_bytes(samples: NDArray[np.int16]) -> NDArray[np.int8]:
    """(count, samples) → (count, 2 samples): the inputs of such a model."""
    return np.ascontiguousarray(samples, "<i2").view(np.int8)


def from_bytes(outputs: NDArray[np.int8], frontend: Frontend) -> NDArray[np.signedinteger]:
    """The outputs of such a model as features."""
    return np.ascontiguousarray(outputs).view(np.int8 if frontend.bits == 8 else "<i2")
