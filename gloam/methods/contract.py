"""The contract between a published method and everything that trains, evaluates and exports it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Generic, Literal, NamedTuple, Protocol, Self, TypeVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from gloam.batches.batch import Batch
from gloam.errors import GloamError
from gloam.options import Options

_LARGEST = 1_000_000


class OnlyWith(NamedTuple):
    """Options that change no number of training, logged ones included, unless others are set.

    Attributes:
        names: the options.
        needs: what they act with, in words: ``"method.triplet adp"``.
        holds: whether the options have that.
        off: a value besides the default that says the same as "not used"; ``...``: there is none.
    """

    names: tuple[str, ...]
    needs: str
    holds: Callable[[Any], bool]
    off: object = ...


class MethodOptions(Options):
    """Flags of one method. Unknown names are errors; a field's description is its ``--help`` text.

    A number without an upper bound of its own ends at a million.
    """

    # What acts only together; a subclass adds to its parents' list. An option that is not listed always acts.
    together: ClassVar[tuple[OnlyWith, ...]] = ()

    @property
    def label_spaces(self) -> Literal["one", "two", "either"]:
        """``one``: a label is the same identity in both modalities; ``two``: each modality is numbered for itself."""
        return "one"

    @model_validator(mode="after")
    def _numbers_end(self) -> Self:
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            bounded = any(hasattr(limit, "le") or hasattr(limit, "lt") for limit in field.metadata)
            numbers = [n for n in (value if isinstance(value, tuple) else (value,)) if isinstance(n, int | float)]
            if not bounded and any(abs(number) > _LARGEST for number in numbers):
                raise ValueError(f"{name} lies beyond {_LARGEST:,}")
        return self

    @classmethod
    def all_together(cls) -> list[OnlyWith]:
        """The conditions of this model and its parents."""
        return [condition for model in cls.__mro__ for condition in vars(model).get("together", ())]

    def refuse_idle(self) -> None:
        """Refuse options that were set and change nothing. Saved runs are not asked: they trained as they did.

        Raises:
            GloamError: an option other than its default without what it acts with.
        """
        for condition in self.all_together():
            for name in condition.names:
                value, default = getattr(self, name), type(self).model_fields[name].default
                # Asked last: some conditions look into a library.
                if value not in (default, condition.off) and not condition.holds(self):
                    raise GloamError(
                        f"method.{name} {_shown(value)} changes nothing here: it acts only with {condition.needs}. Set "
                        f"that too, or leave method.{name} at {_shown(default)}."
                    )


# Fields that methods share; a method may give another default.
LastStride = Annotated[Literal[1, 2], Field(description="stride of the last stage")]
Pooling = Annotated[Literal["avg", "max", "gem", "gem_learnable"], Field(description="pooling of the last map")]
Blocks = Annotated[int, Field(ge=0, le=100)]  # of one stage
LabelSmoothing = Annotated[float, Field(ge=0, lt=1, description="label smoothing of the identity loss")]
MemoryMomentum = Annotated[float, Field(ge=0, lt=1, description="weight of the old memory row [--momentum]")]


class BackboneOptions(MethodOptions):
    """Options of every method with a backbone."""

    arch: str = Field(
        "resnet50",
        min_length=1,
        max_length=200,
        description="backbone: resnet18/34/50/101/152, ..._ibn_a, small, tiny, timm:<name> [--arch, -a]",
    )


class StemOptions(BackboneOptions):
    """Options of methods whose backbone may have a stem for each modality."""

    streams: Literal[1, 2] = Field(
        2, description="2: a stem per modality; 1: one stem for all, also for data of one modality [--stream]"
    )


class TripletOptions(StemOptions):
    """Options of the supervised methods around the hard triplet."""

    last_stride: LastStride = 1
    margin: float = Field(0.3, ge=0, description="margin of the hard triplet [--margin]")


class BaselineOptions(TripletOptions):
    """Options of the supervised baselines, across modalities or within one (``streams`` 1): Base and AGW."""

    label_smoothing: LabelSmoothing = 0.0
    trunk_factor: float = Field(0.1, gt=0, le=1000, description="learning rate of backbone and pooling over lr")
    weight_center: float = Field(0.0, ge=0, description="weight of the centre loss [CENTER_LOSS_WEIGHT]")
    center_lr: float = Field(0.5, ge=0, description="learning rate of the centres (SGD) [CENTER_LR]")

    together: ClassVar[tuple[OnlyWith, ...]] = (
        OnlyWith(("center_lr",), "method.weight_center above 0", lambda o: o.weight_center > 0),
    )


class ClusterOptions(BackboneOptions):
    """Options of the methods that learn from clusters: the head, the clustering and the memory."""

    pooling: Pooling = "avg"
    width: int = Field(0, ge=0, description="width of a linear layer before the neck; 0: none [--features]")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout of the unit vector [--dropout]")
    eps: float = Field(0.6, gt=0, lt=1, description="largest Jaccard distance of neighbours [--eps]")
    min_samples: int = Field(4, ge=1, description="neighbours of a core point, itself included")
    k1: int = Field(30, ge=1, description="neighbours, itself included [--k1]")
    k2: int = Field(6, ge=1, description="neighbours averaged by query expansion [--k2]")
    temperature: float = Field(0.05, gt=0, description="tau of the contrast with the memory [--temp]")
    momentum: MemoryMomentum = 0.1


class Plateau(NamedTuple):
    """Where a part of the loss rests while nothing is learned.

    Attributes:
        value: what the part is for an uninformed network.
        cure: what to try when training stays there, in sentences.
    """

    value: float
    cure: str


class EpochContext(Protocol):
    """What a method may see and change at the start of an epoch, and see at its end. The trainer provides it.

    Tensors are in the order of the training records (N of them) and live on the CPU.
    """

    @property
    def stage(self) -> str:
        """Name of the running stage."""

    @property
    def epoch(self) -> int:
        """0-based epoch inside the stage."""

    @property
    def num_epochs(self) -> int:
        """Number of epochs of the stage."""

    @property
    def labels(self) -> Tensor:
        """``(N,)`` int64 labels that training currently uses; -1 marks samples left out."""

    @property
    def modalities(self) -> Tensor:
        """``(N,)`` int64."""

    @property
    def cams(self) -> Tensor:
        """``(N,)`` int64."""

    @property
    def generator(self) -> torch.Generator:
        """Private CPU generator, seeded by (seed, stage, epoch): the same draws after a resume."""

    def extract(self, function: Callable[[Tensor, Tensor], Tensor] | None = None, rows: Tensor | None = None) -> Tensor:
        """Stack ``function(images, modalities) -> (n, ...)`` over all training records to ``(N, ...)``.

        Default function: ``method.extract``. Evaluation mode, test transform, no gradient, float32, records in order.
        With ``rows``, a mask ``(N,)``, over those records only.
        """

    def set_labels(self, labels: Tensor) -> None:
        """Train on these ``(N,)`` int64 labels from this epoch on; -1 leaves a sample out."""

    def log(self, name: str, value: float) -> None:
        """Record one number for this epoch."""

    def report_pseudo_labels(self, labels: Tensor) -> None:
        """Log NMI, ARI and pair F-score of ``(N,)`` labels against the hidden ids. The ids never reach the method."""

    def report_correspondence(self, visible: Tensor, infrared: Tensor, name: str = "match") -> None:
        """Log precision and recall of matched label pairs ``(M,), (M,)`` against the hidden truth, if there is one."""


def _has_last_stage(options: Any) -> bool:
    from gloam.models.backbone import has_residual_stages

    return has_residual_stages(options.arch)


# For methods that let `last_stride` be chosen.
LAST_STAGE = OnlyWith(("last_stride",), "a network of residual stages", _has_last_stage)

OptionsT = TypeVar("OptionsT", bound=MethodOptions)


class Method(nn.Module, Generic[OptionsT]):
    """A published system: a network, its losses and its inference path. One file per method, registered by name.

    A method does no logging, no device placement and no optimiser calls. State that must survive a resume lives in
    parameters and buffers (``register_buffer``), or in ``get_extra_state`` / ``set_extra_state``.

    Args:
        num_classes: number of training identities C.
        options: validated flags.
    """

    Options: ClassVar[type[MethodOptions]] = MethodOptions
    # Names of the features that extract() can return; the first is the default. `test_feature` picks one. Options may
    # leave an instance fewer.
    features: tuple[str, ...] = ("feature",)
    # True for methods whose input is a clip (B, T, 3, H, W).
    is_video: ClassVar[bool] = False
    # True for methods that train on labels they make themselves: identities never reach them.
    is_unsupervised: ClassVar[bool] = False
    # True for methods that compare the modalities; options may switch that off (needs_both_modalities).
    is_cross_modal: ClassVar[bool] = True
    # True for exported models, whose graph normalises: extract() then gets uint8 images.
    takes_pixels: bool = False
    # Why the method cannot train in several processes; empty where it can.
    one_process: ClassVar[str] = ""

    def __init__(self, num_classes: int, options: OptionsT) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.options: OptionsT = options
        self.test_feature = self.features[0]

    @classmethod
    def needs_both_modalities(cls, options: Any) -> bool:
        """Whether training data must hold visible and infrared images under these options."""
        return cls.is_cross_modal

    @property
    def feature_dim(self) -> int:
        """Width D of what extract() returns."""
        raise NotImplementedError(f"{type(self).__name__} must name its feature width")

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of one augmented batch.

        Returns:
            ``"loss"``: the scalar to minimise, and every named part, detached or not (they are only logged).
        """
        raise NotImplementedError(f"{type(self).__name__} must define training_step")

    def extract(self, images: Tensor, modalities: Tensor) -> Tensor:
        """Descriptors for search: the only inference path.

        Args:
            images: ``(N, 3, H, W)`` or ``(N, T, 3, H, W)`` float32, normalised (:func:`gloam.augmentation.normalize`).
            modalities: ``(N,)`` int64; any mixture.

        Returns:
            ``(N, D)`` float32 of unit length.
        """
        raise NotImplementedError(f"{type(self).__name__} must define extract")

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Optimiser groups, each with ``params`` and its ``lr``. Default: everything trainable at ``lr``."""
        return [{"params": [p for p in self.parameters() if p.requires_grad], "lr": lr}]

    def start_stage(self, stage: str) -> None:
        """Called once before the first epoch of a stage (also after a resume inside it): freeze, unfreeze, re-route."""

    def on_epoch_start(self, context: EpochContext) -> None:
        """Called before every epoch: weights that depend on past losses, pseudo-labels, correspondences, memories."""

    def on_epoch_end(self, context: EpochContext) -> None:
        """Called after the last step of every epoch, in training mode: measure what the epoch has achieved.

        Labels that are set here are ignored; what is logged belongs to this epoch.
        """

    def after_step(self) -> None:
        """Called after every optimiser step: momentum memories and averaged teachers update here, outside autograd."""

    def plateaus(self) -> dict[str, Plateau]:
        """Name of a loss part of ``training_step`` -> its plateau; the trainer warns while training stays there."""
        return {}

    def rename_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Names of this method's published checkpoint to names of this module, beyond those of the usual backbones.

        Args:
            state: flat state of any weight file; unknown names must be kept.
        """
        return state

    def to_published(self) -> dict[str, Any] | None:
        """Content of a checkpoint under the names of this method's authors: what ``rename_published`` reads, written.

        Returns:
            What ``torch.save`` shall write; None where the authors' code defines no such file, or the network is
            another one than theirs (timm).
        """
        return None


def create_options(cls: type[Method[Any]], values: dict[str, Any]) -> MethodOptions:
    """Validate a method's options.

    Raises:
        GloamError: an unknown key (the nearest known one is named) or a value of the wrong kind.
    """
    from pydantic import ValidationError

    from gloam.errors import did_you_mean

    known = cls.Options.model_fields
    for key in values:
        if key not in known:
            raise GloamError(f"Method option {key!r} is unknown to {cls.__name__}. {did_you_mean(key, known)}")
    try:
        return cls.Options(**values)
    except ValidationError as error:
        reasons = "; ".join(
            ": ".join(filter(None, (".".join(map(str, e["loc"])), e["msg"].removeprefix("Value error, "))))
            for e in error.errors()
        )
        raise GloamError(f"Bad options for {cls.__name__}: {reasons}.") from error


def _shown(value: object) -> str:
    """An option's value as it stands in a recipe."""
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, tuple) else repr(value) if value == "" else str(value)
