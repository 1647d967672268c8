"""Bytes of a file as a C array, as ``xxd -i`` writes them, with what they are in a comment."""

from __future__ import annotations

from collections.abc import Mapping

from dpsgd_torch.export.c_text import comment

_PER_LINE = 12


def to_header(content: bytes, provenance: Mapping[str, str]) -> str:
    """``const unsigned char model[]`` for TensorFlow Lite Micro's ``GetModel``.

    Aligned for it where the compiler is C++11 or later, as an Arduino's is.

    >>> print(to_header(b"TFL3", {"run": "r1"}))
    /* A TensorFlow Lite model of 4 bytes.
     * run: r1 */
    #ifdef __cplusplus
    alignas(16)
    #endif
    const unsigned char model[] = {
      0x54, 0x46, 0x4c, 0x33
    };
    const unsigned int model_len = 4;
    <BLANKLINE>
    """
    about = [f"A TensorFlow Lite model of {len(content)} bytes."]
    about += [f"{key}: {value}" for key, value in provenance.items()]
    rows = (content[at : at + _PER_LINE] for at in range(0, len(content), _PER_LINE))
    body = ",\n".join("  " + ", ".join(f"0x{byte:02x}" for byte in row) for row in rows)
    return (
        f"{comment(about)}\n#ifdef __cplusplus\nalignas(16)\n#endif\n"
        f"const unsigned char model[] = {{\n{body}\n}};\n"
        f"const unsigned int model_len = {len(content)};\n"
    )
