"""Per-example gradients of any model: one forward pass, and one backward to where parameters are.

No hook is on the model. The graph that autograd built is walked from the losses to the parameters;
where one meets the examples, the gradient that comes there and what the node had saved make its
parts ["ghost clipping": Li et al. 2022; "book-keeping": Bu et al. 2023].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from dpsgd_torch.data.trees import Forward, Tree, call, first, length, taken
from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.capture import by_layer
from dpsgd_torch.gradients.graph.arrivals import Again, Arrivals, Undecided
from dpsgd_torch.gradients.graph.halves import goes_through_half
from dpsgd_torch.gradients.graph.layouts import Layouts, Unknown
from dpsgd_torch.gradients.graph.pull_back import pull_back
from dpsgd_torch.gradients.graph.recurrent import Unfused
from dpsgd_torch.gradients.graph.rules.base import Entangled
from dpsgd_torch.gradients.graph.search import add_layouts
from dpsgd_torch.gradients.graph.walk import Key, walk
from dpsgd_torch.gradients.losses import Loss
from dpsgd_torch.gradients.parts import Part, Written
from dpsgd_torch.gradients.parts.clipped import PartVectors
from dpsgd_torch.gradients.scaled import Unscaled
from dpsgd_torch.gradients.vectors import Vectors


class GraphGradients:
    """The model as it is, and its examples' gradients.

    * No gradient of a weight is computed for the batch as a whole.
    * What a parameter adds anywhere in a pass is found in that pass's own graph, so no use of it
      is missed: through layers or functions, once or often, tied to another or not.

    Args:
        layouts: where the examples are in each meeting; None looks at the first batch's first.
        forward: what outputs come from.
        scale: the loss scale, a power of 2: by it losses are multiplied on the way back, and what
            came back is divided, so that what is small in float16 is not lost.
        alone: whether every example comes by itself. Else one that does by chance, and was rounded
            to half, goes in a pass of two of it: autograd's own gradient would be rounded once
            more, by 2⁻⁸, and who else is in a batch decides who comes by itself.
    """

    def __init__(
        self,
        model: nn.Module,
        layouts: Layouts | None = None,
        forward: Forward = call,
        scale: float = 1.0,
        alone: bool = False,
    ) -> None:
        self._model, self.layouts, self._forward = model, layouts, forward
        self._scale, self._alone = scale, alone
        self._named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._trained = {p: name for name, p in self._named.items()}
        self._unfused = Unfused(model)
        self._parts: dict[str, Part] = {}
        self._examples = 0

    def backward(self, loss: Loss, inputs: Tree, targets: Tree) -> float:
        """Sum of the losses; what belongs to each example stays until ``vectors``.

        Raises:
            ModelError: examples mix, or cannot be told apart: the layer and parameter are named.
        """
        try:
            return self._backward(loss, inputs, targets)
        except ModelError as error:
            raise by_layer(self._model, error) from error

    def _backward(self, loss: Loss, inputs: Tree, targets: Tree) -> float:
        self._examples, self._parts = length(inputs), {}
        if self.layouts is None:
            self.layouts = Layouts()
            self._look(loss, inputs, targets, 2)
        layouts = self.layouts
        device = first(inputs).device
        drawn = _draws(device)
        while True:
            losses = loss(self._forward(self._model, inputs), targets)
            if losses.grad_fn is None:
                break
            if self._examples == 1 and not self._alone and goes_through_half(losses):
                del losses
                _redraw(device, drawn)
                return self._first_of_two(loss, inputs, targets)
            try:
                self._parts = self._read(losses, layouts)
                break
            except Again as again:
                layouts.later.add(again.key)
            except Undecided as undecided:
                self._decide(undecided.key, undecided.use, loss, inputs, targets)
            except Entangled:
                _redraw(device, drawn)
                return self._each_alone(loss, inputs, targets)
            except Unknown:  # other operations for another number of examples
                self._look(loss, inputs, targets, self._examples)
            _redraw(device, drawn)  # as a run would that had known
        return float(losses.detach().sum())

    def once(self, loss: Loss, inputs: Tree, targets: Tree) -> tuple[torch.Tensor, dict[str, Part]]:
        """Losses and parts of a pass that goes as others went before, whose layouts are known."""
        self._examples = length(inputs)
        assert self.layouts is not None
        losses = loss(self._forward(self._model, inputs), targets)
        return losses.detach(), self._read(losses, self.layouts)

    def _read(self, losses: torch.Tensor, layouts: Layouts) -> dict[str, Part]:
        """The parts of each parameter, by name."""
        if self._examples == 1:
            return self._of_one(losses)
        found = walk(
            losses,
            self._trained,
            lambda meeting: layouts.holds_examples(meeting, self._examples),
        )
        received = Arrivals(found, layouts.later, layouts.seen, self._scale).collect(losses)
        return pull_back(received, found.shared, self._named)

    def _of_one(self, losses: torch.Tensor) -> dict[str, Part]:
        """Of a lone example, whose gradient is autograd's."""
        gradients = torch.autograd.grad(
            [losses], list(self._trained), [torch.full_like(losses, self._scale)], allow_unused=True
        )
        return {
            name: Written(gradient.to_dense()[None])
            for name, gradient in zip(self._named, gradients, strict=True)
            if gradient is not None
        }

    def _first_of_two(self, loss: Loss, inputs: Tree, targets: Tree) -> float:
        """A lone example as in any other batch: of a pass of two of it, the first's parts."""
        both = torch.zeros(2, dtype=torch.int64, device=first(inputs).device)
        told = [0.0]

        def noted(outputs: Tree, of: Tree) -> torch.Tensor:
            losses = loss(outputs, of)
            told[0] = float(losses.detach()[0])
            return losses

        self._backward(noted, taken(inputs, both), taken(targets, both))
        with torch.no_grad():
            self._parts = {name: part.widened(both[:1]) for name, part in self._parts.items()}
        self._examples = 1
        return told[0]

    def _each_alone(self, loss: Loss, inputs: Tree, targets: Tree) -> float:
        """Each example in a pass of its own, where nothing of another's can come in."""
        total, found = 0.0, list[dict[str, Part]]()
        for row in torch.arange(self._examples, device=first(inputs).device).split(1):
            losses = loss(self._forward(self._model, taken(inputs, row)), taken(targets, row))
            total += float(losses.detach().sum())
            found.append(self._of_one(losses) if losses.grad_fn is not None else {})
        for name, p in self._named.items():
            if any(name in each for each in found):
                nothing = Written(torch.zeros_like(p)[None])
                alone = [each.get(name, nothing).written() for each in found]
                self._parts[name] = Written(torch.cat(alone))
        return total

    def _decide(self, key: Key, use: int, loss: Loss, inputs: Tree, targets: Tree) -> None:
        """Look at examples in turn, at the parameters as they are, until one sends a gradient."""
        assert self.layouts is not None
        for row in range(self._examples):
            before = self.layouts.forget_undecided()
            self._look(loss, inputs, targets, 2, row)
            self.layouts.recall(before)
            if self.layouts.decided(key, use):
                return
        raise ModelError(
            f"parameter {key[0][0]}: a gradient comes to its use ({key[1]}) in a batch that none "
            "of its examples sends there alone; remove what works across the batch (statistics, "
            "attention, contrastive terms)"
        )

    def _look(
        self, loss: Loss, inputs: Tree, targets: Tree, copies: int, row: int | None = None
    ) -> None:
        """At copies of one row as the parameters are, or of several with those moved."""
        assert self.layouts is not None
        device = first(inputs).device

        def losses_of(attempt: int) -> torch.Tensor:
            place = attempt % self._examples if row is None else row
            same = torch.full((copies + (copies == 2 and attempt % 2),), place, device=device)
            return loss(self._forward(self._model, taken(inputs, same)), taken(targets, same))

        add_layouts(
            self.layouts,
            self._trained,
            list(self._model.parameters()) if row is None else (),
            losses_of,
            device,
            5 if row is None else 1,
        )

    def vectors(
        self,
        params: Sequence[nn.Parameter],
        slots: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
    ) -> Vectors:
        parts, self._parts = self._parts, {}
        by_param = {self._named[name]: part for name, part in parts.items()}
        vectors = PartVectors(by_param, params, self._examples, slots, weights)
        return vectors if self._scale == 1 else Unscaled(vectors, self._scale)

    def cleanup(self) -> None:
        """Give recurrent layers their fused kernels back."""
        self._unfused.remove()


def _draws(device: torch.device) -> tuple[torch.Tensor, ...]:
    """Where torch's generators stand."""
    if device.type == "cuda":
        return torch.get_rng_state(), torch.cuda.get_rng_state(device)
    return (torch.get_rng_state(),)


def _redraw(device: torch.device, states: tuple[torch.Tensor, ...]) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
