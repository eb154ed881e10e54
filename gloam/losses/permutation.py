"""Permutation recovery: shuffle horizontal stripes, predict the order, compare (MMGL's global task).

*Source*: figure of the MMGL repository; the Sinkhorn operator is that of Mena et al., ICLR 2018. An order ``O`` puts
original stripe ``O[r]`` at position ``r`` of the shuffled image; its matrix has ``P[r, O[r]] = 1``.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from gloam.precision import at_least_float32

PermutationLoss = Literal["mse_sum", "mse_mean", "ce"]


def draw_orders(count: int, num_stripes: int, generator: torch.Generator) -> Tensor:
    """``(count, P)`` int64 independent uniform orders on the CPU, one per image (one per batch prevents learning)."""
    return torch.rand((count, num_stripes), generator=generator).argsort(dim=1)


def shuffle_stripes(images: Tensor, orders: Tensor) -> Tensor:
    """Re-order P horizontal stripes of every image.

    Args:
        images: ``(B, C, H, W)``; H must be a multiple of P.
        orders: ``(B, P)`` int64; stripe ``r`` of the result is stripe ``orders[:, r]`` of the image.

    Returns:
        ``(B, C, H, W)``.

    Raises:
        ValueError: H is not a multiple of P.
    """
    batch, channels, height, width = images.shape
    parts = orders.shape[1]
    if height % parts:
        raise ValueError(f"Images of height {height} cannot be cut into {parts} equal stripes.")
    stripes = images.reshape(batch, channels, parts, height // parts, width)
    rows = torch.arange(batch, device=images.device)[:, None]
    # Two index tensors around a slice put the indexed axes first: (B, P, C, h, W).
    shuffled = stripes[rows, :, orders.to(images.device)]
    return shuffled.transpose(1, 2).reshape(batch, channels, height, width)


def order_matrix(orders: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """``(B, P, P)`` permutation matrices with ones at ``[r, orders[r]]``."""
    return torch.nn.functional.one_hot(orders, orders.shape[1]).to(dtype)


def gumbel_noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise ``-log(-log(u + 1e-20) + 1e-20)`` on the CPU."""
    return -torch.log(-torch.log(torch.rand(shape, generator=generator) + 1e-20) + 1e-20)


def sinkhorn(scores: Tensor, *, iterations: int = 20, temperature: float = 1.0) -> Tensor:
    """Nearly doubly stochastic matrices from scores, in the log domain; rows are normalised first, columns last.

    Args:
        scores: ``(..., P, P)``; computed in float32 at least.
        iterations: number of row-column rounds.
        temperature: scores are divided by it; towards 0 the result tends to the best assignment.

    Returns:
        ``(..., P, P)``; columns sum to 1, rows approximately.
    """
    with torch.autocast(device_type=scores.device.type, enabled=False):
        log = at_least_float32(scores) / temperature
        for _ in range(iterations):
            log = log - log.logsumexp(dim=-1, keepdim=True)
            log = log - log.logsumexp(dim=-2, keepdim=True)
        return log.exp()


def permutation_loss(predicted: Tensor, orders: Tensor, form: PermutationLoss = "mse_sum") -> Tensor:
    """Distance of predicted matrices from the true orders.

    Args:
        predicted: ``(B, P, P)`` from :func:`sinkhorn`.
        orders: ``(B, P)`` int64.
        form: ``mse_sum``: squared difference summed over the matrix (uniform prediction: P - 1); ``mse_mean``: divided
            by P squared, which does not train; ``ce``: cross-entropy of the rows (uniform: log P).

    Returns:
        Scalar, mean over the batch.
    """
    if form == "ce":
        chosen = predicted.gather(2, orders[:, :, None]).squeeze(2)
        return -chosen.clamp_min(torch.finfo(predicted.dtype).tiny).log().mean()
    squared = (predicted - order_matrix(orders, predicted.dtype)).square().sum(dim=(1, 2)).mean()
    return squared / orders.shape[1] ** 2 if form == "mse_mean" else squared


def uniform_permutation_loss(num_stripes: int, form: PermutationLoss = "mse_sum") -> float:
    """What :func:`permutation_loss` is for P stripes when every entry of the prediction is 1/P: nothing is known."""
    if form == "ce":
        return math.log(num_stripes)
    return (num_stripes - 1) / (num_stripes**2 if form == "mse_mean" else 1)


def assign_orders(predicted: Tensor) -> Tensor:
    """Maximum-weight assignments (Hungarian method) of ``(B, P, P)`` matrices: ``(B, P)`` int64 orders on the CPU."""
    weights = predicted.detach().double().cpu().numpy()
    return torch.from_numpy(np.stack([linear_sum_assignment(matrix, maximize=True)[1] for matrix in weights]))


def permutation_accuracy(predicted: Tensor, orders: Tensor) -> tuple[Tensor, Tensor]:
    """Accuracy of the maximum-weight assignment (Hungarian method), which is always a permutation.

    Args:
        predicted: ``(B, P, P)``.
        orders: ``(B, P)``.

    Returns:
        ``(B,)`` fraction of right positions (chance 1/P) and ``(B,)`` whether the whole order is right (chance 1/P!).
    """
    right = assign_orders(predicted) == orders.cpu()
    return right.double().mean(dim=1), right.all(dim=1).double()
