"""A backbone: three convolutions. With two streams gloam copies the first for the infrared images."""

from torch import Tensor, nn

from gloam.models.backbone import register


@register("thin")
class Thin(nn.Sequential):
    """``(N, 3, H, W)`` images to ``(N, 16, H/8, W/8)`` maps."""

    out_channels = 16
    first_layer = "0"

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, stride=2, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = super().forward(images)
        return maps
