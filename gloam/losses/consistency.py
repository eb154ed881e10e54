"""Agreement of predictions between two views of the same people (CAJ, CAJ+)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import log_softmax

from gloam.precision import at_least_float32


def softened_divergence(student: Tensor, target: Tensor, temperature: float = 3.0) -> Tensor:
    """Kullback-Leibler divergence of softened predictions (``--kl`` of the CAJ release).

    *Source*: the release of CAJ (Ye et al., ICCV 2021): its loss sees the values of the target only.

    Args:
        student: ``(n, C)`` logits.
        target: ``(n, C)`` logits; detached.
        temperature: softens both; the loss is multiplied by its square.
    """
    log_p = log_softmax(at_least_float32(student) / temperature, dim=1)
    t = (at_least_float32(target.detach()) / temperature).softmax(dim=1) + 1e-7
    return temperature**2 * (t * (t.log() - log_p)).sum(dim=1).mean()


def soft_cross_entropy(student: Tensor, target: Tensor) -> Tensor:
    """``-mean sum softmax(target) log softmax(student)`` with the target detached (CAJ+)."""
    t = at_least_float32(target.detach()).softmax(dim=1)
    return -(t * log_softmax(at_least_float32(student), dim=1)).sum(dim=1).mean()
