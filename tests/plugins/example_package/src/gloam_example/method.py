"""A method: identity loss and any registered loss on average-pooled maps of any backbone."""

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from gloam import losses
from gloam.batches.batch import Batch
from gloam.methods import Method, MethodOptions, register
from gloam.models.backbone import create_backbone


class CentroidOptions(MethodOptions):
    """Flags; each is a key of the recipe and a flag of the command line."""

    arch: str = Field("thin", description="backbone")
    loss: str = Field("to_centroid", description="loss on the features beside the identity loss")
    weight: float = Field(0.1, ge=0, description="weight of that loss")


@register("centroid")
class Centroid(Method[CentroidOptions]):
    """Features of an identity gather around their mean.

    Args:
        num_classes: number of training identities.
        options: flags.
    """

    Options = CentroidOptions

    def __init__(self, num_classes: int, options: CentroidOptions) -> None:
        super().__init__(num_classes, options)
        self.backbone = create_backbone(options.arch, streams=2)
        self.classifier = nn.Linear(self.feature_dim, num_classes)
        self.loss = losses.get(options.loss)

    @property
    def feature_dim(self) -> int:
        return self.backbone.out_channels

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        pooled = self.backbone(batch.images, batch.modalities).mean(dim=(2, 3))
        identity = cross_entropy(self.classifier(pooled), batch.pids)
        pull = self.loss(pooled, batch.pids)
        return {"loss": identity + self.options.weight * pull, "identity": identity, "pull": pull}

    def extract(self, images: Tensor, modalities: Tensor) -> Tensor:
        return normalize(self.backbone(images, modalities).float().mean(dim=(2, 3)), dim=1)
