"""The layers of a model that own what is trained, and the refusal of those without gradients."""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrize

import dpsgd_torch.gradients.rules  # noqa: F401 (fills the registry)
from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.capture import advice, described
from dpsgd_torch.gradients.rules.opacus_samplers import is_made_of_layers
from dpsgd_torch.gradients.rules.registry import is_registered, rule_of


def layers_of(model: nn.Module) -> dict[nn.Module, str]:
    """The layers to watch, and their paths: together they own every trainable parameter.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Sequential(nn.Conv1d(1, 1, 1)))
    >>> list(layers_of(model).values())
    ['0', '2.0']
    """
    found: dict[nn.Module, str] = {}

    def visit(layer: nn.Module, path: str) -> None:
        lists = (c for c in layer.children() if isinstance(c, nn.ParameterList | nn.ParameterDict))
        own = any(
            p.requires_grad for held in (layer, *lists) for p in held.parameters(recurse=False)
        )
        whole = parametrize.is_parametrized(layer) or rule_of(layer).whole
        inside = parametrize.is_parametrized(layer) or (whole and is_registered(layer))
        trained = own or (inside and any(p.requires_grad for p in layer.parameters()))
        if trained and not is_made_of_layers(layer):
            found.setdefault(layer, path)
            if whole:
                return
        for name, child in layer.named_children():
            visit(child, f"{path}.{name}" if path else name)

    visit(model, "")
    for layer, path in found.items():
        _refuse(layer, path)
    return found


def _refuse(layer: nn.Module, path: str) -> None:
    """Refuse what has no per-example gradient, before a pass would fail on it."""
    refusal = rule_of(layer).refusal(layer)
    if isinstance(layer, nn.Embedding) and layer.scale_grad_by_freq:
        refusal = (
            "scale_grad_by_freq divides by how often the whole batch holds a word, which mixes "
            "examples; set it to False"
        )
    elif is_registered(layer):
        pass
    elif isinstance(layer, nn.RNNBase | nn.RNNCellBase | nn.MultiheadAttention):
        refusal = f"has no per-example gradients{advice(layer)}"
    elif isinstance(layer, nn.EmbeddingBag):
        refusal = (
            "joins rows into bags; pass gradients='graph', or use nn.Embedding and take the mean "
            "or sum over the words"
        )
    if refusal:
        raise ModelError(f"{described(path, layer)}: {refusal}")
