"""A loss: pull every feature to the mean of its identity."""

from torch import Tensor

from gloam.losses import register


@register("to_centroid")
def to_centroid(features: Tensor, labels: Tensor) -> Tensor:
    """Mean squared distance of feature rows ``(n, D)`` to the mean of the rows with their label ``(n,)``."""
    same = (labels[:, None] == labels[None, :]).to(features.dtype)
    centroids = same @ features / same.sum(dim=1, keepdim=True)
    return (features - centroids).square().sum(dim=1).mean()
