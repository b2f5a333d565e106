"""Upper triangular roots of symmetric matrices."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

JITTER = 1e-13  # of the mean square


def root(
    second: Callable[[], Float[Tensor, "size size"]], share: float = JITTER
) -> tuple[Float[Tensor, "size size"], float]:
    """Return R and a jitter with R'R = H + jitter, R upper triangular, for H that may be singular.

    Args:
        share: of the mean square, the jitter that is tried first.
        second: makes H, on and below its diagonal; H is large and is lost, and made again where a jitter is too small.
    """
    while True:
        H = second()
        mean = float(H.diagonal().mean()) if len(H) else 0.0
        jitter = share * mean if mean > 0 else 1.0
        H.diagonal().add_(jitter)
        # In place: LAPACK has a matrix by columns, as H.mT lies, which is on and above the diagonal what is told of H.
        failed = torch.empty(0, dtype=torch.int32, device=H.device)
        torch.linalg.cholesky_ex(H.mT, upper=True, out=(H.mT, failed))
        if not bool(failed):
            return H.mT, jitter
        del H  # before it is made again
        share *= 10
