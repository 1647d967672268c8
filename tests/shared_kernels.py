"""C of many models in one translation unit, each kernel once: a fifth of the time to compile."""

import re
from collections.abc import Sequence

from dpsgd_torch.export import to_c
from dpsgd_torch.export.c_text import with_prefix

LIBRARY = ("base", *to_c.HELPERS, "requantize_down", "requantize_any", *to_c.KERNELS)
Sources = dict[str, str]


def shared(models: Sequence[Sources]) -> list[Sources]:
    """Sources as ``to_c`` makes them → the same that use the kernels of those before them.

    Models share where their options are the same and requantize is; the first that needs a kernel
    brings it. Options, constants, arena and calls remain each model's own.
    """
    there: dict[tuple[str, ...], set[str]] = {}
    return [_without_known(model, there) for model in models]


def _without_known(model: Sources, there: dict[tuple[str, ...], set[str]]) -> Sources:
    (prefix,) = (name.removesuffix(".h") for name in model if name.endswith(".h"))
    text = model[f"{prefix}.c"]
    options = re.findall(rf"#define {prefix.upper()}_((?:CHUNKS|LIMITS) \d+).*", text)
    bodies = {name: to_c.source(name).rstrip() for name in LIBRARY}
    own = {name: with_prefix(body, prefix) for name, body in bodies.items()}
    used = [name for name in LIBRARY if own[name] in text]
    key = (*options, *(name for name in used if name.startswith("requantize")))
    known = there.setdefault(key, set())
    common = f"kernels{list(there).index(key)}"
    for name in used:
        text = text.replace(own[name], "" if name in known else with_prefix(bodies[name], common))
    if known:
        text = re.sub(rf"#define {prefix.upper()}_(CHUNKS|LIMITS).*\n", "", text)
    names = {name for kernel in used for name in re.findall(r"\bmodel_(\w+)", bodies[kernel])}
    macros = {name for kernel in used for name in re.findall(r"\bMODEL_(\w+)", bodies[kernel])}
    known.update(used)
    text = _renamed(text, prefix, common, names)
    text = _renamed(text, prefix.upper(), common.upper(), macros)
    return {**model, f"{prefix}.c": text}


def _renamed(text: str, prefix: str, common: str, names: set[str]) -> str:
    return re.sub(
        rf"\b{prefix}_(\w+)",
        lambda found: f"{common}_{found[1]}" if found[1] in names else found[0],
        text,
    )
