"""Steps on a card, recorded once and replayed: hundreds of small kernels are launched as one.

A card waits for Python before every kernel of a small network, and so does a large one's first layers. What a step
does is the same every time but for its inputs; a CUDA graph has it without Python. What that is worth: docs/fleets.md.
"""

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from widthwise import dropout

log = logging.getLogger("widthwise")
WARM = 3  # steps that are taken as usual first: kernels are chosen, memory is asked for

Work = Callable[[Tensor, Tensor], tuple[Tensor, ...]]


class Recorded:
    """Work that depends on inputs and targets of one shape, and on tensors that stay where they are.

    What it returns stays where it is, too, and is overwritten by the next step.
    """

    def __init__(self, work: Work, network: nn.Module):
        self.work, self.network = work, network
        self.steps, self.fails = 0, False
        self.graph: torch.cuda.CUDAGraph | None = None
        self.aside: torch.cuda.Stream | None = None  # one for all steps: gradients are added up on their first step's
        dropout.let_go(network)

    def __call__(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Do the work: as it is, or of the first few steps' successors, by replaying it."""
        if self.fails or not inputs.is_cuda:
            return self.work(inputs, targets)
        if self.graph is None:
            if self.steps < WARM:
                return self._aside(inputs, targets)
            self._record(inputs, targets)
            if self.graph is None:
                return self.work(inputs, targets)
        else:
            dropout.draw(self.network)
            for kept, new in zip(self.given, (inputs, targets), strict=True):
                _once(kept).copy_(_once(new))
        self.graph.replay()
        return self.found

    def _aside(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Do the work on another stream, as recording does: what is made on its way belongs to no stream of ours."""
        self.steps += 1
        self.aside = aside = self.aside or torch.cuda.Stream(inputs.device)
        here = torch.cuda.current_stream(inputs.device)
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            found = self.work(inputs, targets)
        here.wait_stream(aside)
        for tensor in (inputs, targets, *found):
            tensor.record_stream(aside)
        return found

    def _record(self, inputs: Tensor, targets: Tensor) -> None:
        """Record the work of these inputs, without doing it."""
        self.given = tuple(_once(x).clone().expand_as(x) for x in (inputs, targets))
        graph = torch.cuda.CUDAGraph()
        dropout.hold(self.network, inputs.device)
        try:
            with torch.cuda.graph(graph, stream=self.aside):
                self.found = self.work(*self.given)
        except RuntimeError as error:  # such as a network of a user's own that asks for a number
            self.fails = True
            dropout.let_go(self.network)
            log.info("steps of %s cannot be recorded (%s); they are taken one by one.", type(self.network), error)
            return
        self.graph = graph


def _once(x: Tensor) -> Tensor:
    """Return what an expanded tensor has in memory: of members that share a batch, the batch."""
    return x[:1] if x.ndim and x.stride(0) == 0 else x
