"""A front end dressed as a model, so that whatever runs and counts models runs and counts it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.export.c_text import with_prefix
from dpsgd_torch.export.frontend.to_c import frontend_to_c
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

_INVOKE = f"""
/* Bytes of any alignment, the lower one first. */
void model_invoke(const int8_t *input, int8_t *output)
{{
    static int16_t samples[MODEL_FRAME];
    static model_feature features[MODEL_FEATURES];
    uint32_t i;
    for (i = 0; i < MODEL_FRAME; ++i) {{
        samples[i] = (int16_t)(input[2 * i + 1] * 256 + (uint8_t)input[2 * i]);
    }}
{CALL}    for (i = 0; i < MODEL_OUTPUT_SIZE; ++i) {{
        output[i] = (int8_t)(features[i / sizeof features[0]] >> (8 * (i % sizeof features[0])));
    }}
}}
"""


def frontend_as_model(frontend: Frontend, prefix: str = "model") -> dict[str, str]:
    """Sources as ``to_c`` makes them; an input is a frame's bytes, an output its features'."""
    sources = frontend_to_c(frontend, prefix)
    sizes = {
        "input_size": 2 * frontend.frame,
        "output_size": frontend.features * frontend.bits // 8,
    }
    declared = with_prefix(_DECLARED.format(**sizes), prefix)
    return {
        f"{prefix}.c": sources[f"{prefix}.c"] + with_prefix(_INVOKE, prefix),
        f"{prefix}.h": sources[f"{prefix}.h"] + declared,
    }


def frame_bytes(frames: NDArray[np.int16]) -> NDArray[np.int8]:
    """(count, frame) → (count, 2 frame): the inputs of such a model."""
    return np.ascontiguousarray(frames, "<i2").view(np.int8)


def from_bytes(outputs: NDArray[np.int8], frontend: Frontend) -> NDArray[np.signedinteger]:
    """The outputs of such a model as features."""
    return np.ascontiguousarray(outputs).view(np.int8 if frontend.bits == 8 else "<i2")
