"""What a loss or score is, as text that differs where its answers could: for a run's contract.

The contract is what a resumed run must share and what the noise depends on. Were two losses told
alike, two runs of one seed would draw the same noise for different gradients.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import inspect
import re
import types
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from dpsgd_torch.data.tensors import raw_bytes

_DEEP = 6  # closures within closures; what is deeper is told by its type
_KNOWN = ("torch", "dpsgd_torch")  # whose functions their names and versions tell
_PLAIN = (bool, int, float, complex, str, bytes, types.NoneType)
_CALLED = (types.FunctionType, types.BuiltinFunctionType, functools.partial)
_TELLING = (*_PLAIN, *_CALLED, torch.Tensor, np.ndarray)


def described(loss: Any) -> str:
    """Name, options and values held; tensors by shape and digest, never by what is in them.

    A function of the user's own is also told by a digest of its code, and by what it encloses.

    >>> described(nn.CrossEntropyLoss()), described(nn.functional.cross_entropy)
    ('CrossEntropyLoss()', 'cross_entropy')
    >>> described(nn.CrossEntropyLoss(label_smoothing=0.1))
    'CrossEntropyLoss()(label_smoothing=0.1)'
    """
    return _told(loss, 0)


def described_model(model: nn.Module) -> str:
    """Its layers, the code of the user's own, and what they hold beside their state.

    For the noise alone, not for what a resumed run must share: a layer may count its calls, or
    keep what it saw last.

    >>> described_model(nn.Sequential(nn.ReLU()))
    'Sequential( (0): ReLU() )'
    """
    held: dict[str, Any] = {}
    for path, part in model.named_modules():
        if type(part).__module__.split(".")[0] != "torch":
            telling = {k: v for k, v in vars(part).items() if isinstance(v, _TELLING)}
            held |= {f"{path}.{name}".lstrip("."): value for name, value in telling.items()}
    return " ".join(str(model).split()) + _options(held | _code(model.modules()), 0)


def described_code(part: object) -> str:
    """The code of an object whose class is the user's own, with the plain values that it holds.

    Nothing of the library's or torch's, which name and version tell.

    >>> described_code(torch.optim.SGD([torch.zeros(1)], lr=0.1))
    ''
    """
    lambdas = getattr(part, "lr_lambdas", None)  # of torch's LambdaLR, whose state has none
    found = _code([part]) | ({} if lambdas is None else {"lr_lambdas": lambdas})
    if not found:
        return ""
    held = {k: v for k, v in getattr(part, "__dict__", {}).items() if isinstance(v, _TELLING)}
    return type(part).__qualname__ + _options(held | found, 0)


def _code(parts: Iterable[object]) -> dict[str, Any]:
    """The methods of classes of the user's own, by class and name."""
    classes = {each for part in parts for each in type(part).__mro__}
    own = [c for c in classes if c.__module__.split(".")[0] not in (*_KNOWN, "builtins")]
    return {
        f"{each.__qualname__}.{name}": method
        for each in sorted(own, key=lambda c: (c.__module__, c.__qualname__))
        for name, method in vars(each).items()
        if isinstance(method, types.FunctionType)
    }


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.layout is torch.strided else tensor.to_dense()


def _told(value: Any, depth: int) -> str:
    deeper = functools.partial(_told, depth=depth + 1)
    if isinstance(value, np.ndarray) and value.dtype != object:
        value = torch.from_numpy(value)
    if isinstance(value, torch.Tensor):
        kind = f"{tuple(value.shape)} {value.dtype}"
        return f"tensor {kind} {hashlib.sha256(raw_bytes(_dense(value))).hexdigest()[:16]}"
    if isinstance(value, _PLAIN):
        return repr(value)
    if depth > _DEEP:
        return type(value).__qualname__
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {deeper(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(deeper, value)) + "]"
    if isinstance(value, functools.partial):
        given = {**{str(i): part for i, part in enumerate(value.args)}, **value.keywords}
        return deeper(value.func) + _options(given, depth)
    if isinstance(value, types.MethodType):
        return f"{deeper(value.__func__)} of {deeper(value.__self__)}"
    if isinstance(value, types.FunctionType):
        return value.__qualname__ + _options(_enclosed(value), depth)
    if isinstance(value, nn.Module):
        return " ".join(str(value).split()) + _options(_held(value) | _code(value.modules()), depth)
    if hasattr(value, "__qualname__"):
        return str(value.__qualname__)
    held = getattr(value, "__dict__", {})
    return type(value).__qualname__ + _options({**held, **_code([value])}, depth)


def _options(given: Mapping[str, Any], depth: int) -> str:
    told = ", ".join(f"{name}={_told(value, depth + 1)}" for name, value in given.items())
    return f"({told})" if told else ""


def _enclosed(function: types.FunctionType) -> dict[str, Any]:
    if str(function.__module__).split(".")[0] in _KNOWN and not function.__closure__:
        return {}
    code = function.__code__
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    return {
        "code": hashlib.sha256(repr(_instructions(code)).encode()).hexdigest()[:16],
        "constants": [part for part in code.co_consts if not isinstance(part, types.CodeType)],
        "defaults": [*(function.__defaults__ or ()), function.__kwdefaults__],
        **{name: _content(cell) for name, cell in cells},
        **{name: function.__globals__[name] for name in _globals(function)},
    }


def _instructions(code: types.CodeType) -> list[Any]:
    """What a function does, with the functions written within it."""
    within = [part for part in code.co_consts if isinstance(part, types.CodeType)]
    constants = [[*part.co_consts] for part in within]
    plain = [[_ordered(c) for c in p if not isinstance(c, types.CodeType)] for p in constants]
    return [code.co_code, code.co_names, plain, *map(_instructions, within)]


def _ordered(constant: object) -> object:
    """A set that is a constant (``x in {"a", "b"}``) in an order that all processes have."""
    return sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant


def _globals(function: types.FunctionType) -> list[str]:
    """The numbers, tensors and functions of its own module that a function calls by name."""
    names, codes = set[str](), [function.__code__]
    while codes:
        code = codes.pop()
        codes += [part for part in code.co_consts if isinstance(part, types.CodeType)]
        names |= {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
    held = function.__globals__
    return sorted(
        name
        for name in names
        if name in held and isinstance(held[name], _TELLING) and not _of_this_process(held[name])
    )


def _of_this_process(value: object) -> bool:
    """Whether it is a name that a library draws when it is loaded (transformers' SESSION_ID).

    Every rank, and every run of one seed, would have another.
    """
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{32}", value) is not None


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _held(module: nn.Module) -> dict[str, Any]:
    """Buffers, parameters and attributes that are not what the class would set by itself."""
    held: dict[str, Any] = {}
    for path, part in module.named_modules():
        defaults = inspect.signature(type(part).__init__).parameters
        public = {k: v for k, v in vars(part).items() if k[0] != "_" and k != "training"}
        for name, value in {**public, **part._buffers, **part._parameters}.items():
            default = defaults[name].default if name in defaults else inspect.Parameter.empty
            plain = value is None or isinstance(value, bool | int | float | str)
            if not (plain and (value is default or value == default)):
                held[f"{path}.{name}".lstrip(".")] = value
    return {name: value for name, value in held.items() if value is not None}
