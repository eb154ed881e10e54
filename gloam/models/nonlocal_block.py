"""Non-local block over the positions of one image, dot-product form (AGW)."""

from __future__ import annotations

from torch import Tensor, nn


class NonLocalBlock(nn.Module):
    """``x + BN(W((theta phi / n) g))`` over the n = h w positions; starts as the identity.

    *Source*: release of AGW (Ye et al., TPAMI 2021). The released inner width is 1, by accident; the paper's is C / 2.

    Args:
        channels: C.
        width: inner width m.
    """

    def __init__(self, channels: int, width: int = 1) -> None:
        super().__init__()
        self.g = nn.Sequential(nn.Conv2d(channels, width, kernel_size=1))
        self.theta = nn.Conv2d(channels, width, kernel_size=1)
        self.phi = nn.Conv2d(channels, width, kernel_size=1)
        norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(norm.weight)
        nn.init.zeros_(norm.bias)
        self.W = nn.Sequential(nn.Conv2d(width, channels, kernel_size=1), norm)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, h, w)`` to the same shape.

        (theta phi) g is computed as theta (phi g): m x m numbers per image instead of n x n.
        """
        theta, phi, g = (layer(x).flatten(2) for layer in (self.theta, self.phi, self.g))
        mixed = (g @ phi.transpose(1, 2) / theta.shape[2]) @ theta
        residual: Tensor = self.W(mixed.unflatten(2, x.shape[2:]))
        return x + residual
