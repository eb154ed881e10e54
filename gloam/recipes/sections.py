"""The sections of a recipe. Every number has its range here; field descriptions are the ``--help`` texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from gloam.batches.clips import FixedFrames, FrameChoice
from gloam.options import AllBut, Options
from gloam.pixels.decode import STRETCH
from gloam.sampling import SamplerOptions, sampler_options

_EPOCHS = 1_000_000
_OPTIMIZERS, _SCHEDULES = ("sgd", "adam", "adamw"), ("multistep", "step", "cosine", "constant")
Epoch = Annotated[int, Field(ge=0, le=_EPOCHS)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Percent = Annotated[float, Field(ge=0, le=100)]


class DataConfig(Options):
    """The ``data`` section: which images, at which size."""

    name: str = Field(description="dataset name (gloam data list)")
    root: Path | None = Field(None, description="the dataset's folder")
    height: int = Field(288, ge=1, le=65_536, description="image height in pixels")
    width: int = Field(144, ge=1, le=65_536, description="image width in pixels")
    interpolation: Literal["lanczos", "bicubic", "bilinear"] = Field("lanczos", description="filter of the resize")
    stretch: str = Field(
        STRETCH,
        description="how 16-bit and radiometric images become 8-bit: percentiles of each image (1%..99%) or two values "
        "of the files (7000..9000)",
    )
    options: dict[str, Any] = Field({}, description="options of the dataset, e.g. trial: 3 for RegDB")
    frames: int | None = Field(None, ge=1, le=10_000, description="frames per clip for video methods")
    train_clip: FrameChoice = Field("evenly_random", description="which frames of a tracklet make a training clip")
    test_clip: FixedFrames = Field("evenly", description="which frames of a tracklet make a test clip")
    relabel: Literal["none", "per_modality"] = Field(
        "none", description="per_modality: number identities independently in each modality (weak supervision)"
    )
    cache: str = Field("auto", min_length=1, description="auto, off (decode on the fly) or a folder for decoded pixels")
    workers: int = Field(0, ge=-1, le=1024, description="loader processes; -1: one per core")
    on_bad_image: Literal["fail", "skip"] = Field("fail", description="what to do with an unreadable image")
    fingerprint: Literal["times", "content", "names"] = Field(
        "times", description="what a resume compares image files by: size and time, every byte, or the names alone"
    )

    idle_when: ClassVar = {"train_clip": ("frames", (None,)), "test_clip": ("frames", (None,))}


class OptimizerConfig(Options):
    """The ``optimizer`` section."""

    name: Literal["sgd", "adam", "adamw"] | str = Field(
        "sgd", description="adam couples weight decay as L2, adamw does not; timm:<name> or a registered name"
    )
    lr: float = Field(0.1, gt=0, le=1000, description="base learning rate; a method's groups scale it")
    momentum: float = Field(0.9, ge=0, le=1, description="sgd only")
    nesterov: bool = Field(True, description="sgd only")
    weight_decay: float = Field(5e-4, ge=0, le=1000, description="on every parameter, norms and biases too")
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="adam, adamw")
    eps: float = Field(1e-8, gt=0, le=1, description="adam, adamw")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="rate of a layer of the backbone over that of the next one; the last has its own"
    )
    options: dict[str, Any] = Field({}, description="what a timm or registered optimiser takes beside these")

    idle_when: ClassVar = {
        "momentum": ("name", AllBut("sgd")),
        "nesterov": ("name", AllBut("sgd")),
        "betas": ("name", AllBut("adam", "adamw")),
        "eps": ("name", AllBut("adam", "adamw")),
        "options": ("name", _OPTIMIZERS),
    }


class ScheduleConfig(Options):
    """The ``schedule`` section."""

    name: Literal["multistep", "step", "cosine", "constant"] | str = Field(
        "multistep", description="shape after warm-up; timm:<name> or a registered name"
    )
    milestones: tuple[Epoch, ...] = Field(
        (), description="multistep: epochs from which the rate is multiplied by gamma"
    )
    step_size: int = Field(
        20, ge=1, le=_EPOCHS, description="step: the rate is multiplied by gamma every so many epochs"
    )
    gamma: float = Field(0.1, gt=0, le=1000, description="factor of multistep and step")
    length: int | None = Field(
        None, ge=1, le=_EPOCHS, description="cosine: epoch at which it ends; the stage's epochs if not given"
    )
    minimum: float = Field(0.0, ge=0, le=1000, description="cosine: factor at its end")
    warmup_epochs: int = Field(0, ge=0, le=_EPOCHS, description="epochs of linear warm-up")
    warmup_start: float | None = Field(
        None, ge=0, le=1000, description="factor at epoch 0, rising to 1; not given: (epoch + 1) / warmup_epochs"
    )
    options: dict[str, Any] = Field({}, description="what a timm or registered schedule takes; rates as factors")

    idle_when: ClassVar = {
        "milestones": ("name", AllBut("multistep")),
        "step_size": ("name", AllBut("step")),
        "gamma": ("name", AllBut("multistep", "step")),
        "length": ("name", AllBut("cosine")),
        "minimum": ("name", AllBut("cosine")),
        "options": ("name", _SCHEDULES),
        "warmup_start": ("warmup_epochs", (0,)),
    }


class TrainConfig(Options):
    """The ``train`` section: how long, how precise."""

    epochs: int = Field(81, ge=0, le=_EPOCHS, description="epochs of the stage")
    iterations: int | None = Field(
        None, ge=1, le=1_000_000, description="batches per epoch; not given: the sampler's own number"
    )
    precision: Literal["32", "bf16", "fp16"] = Field("32", description="arithmetic of the forward pass")
    clip_norm: float | None = Field(None, gt=0, le=1e6, description="largest gradient norm")
    bn_group: int | None = Field(
        None, ge=1, le=1_000_000, description="rows that share batch-norm statistics (published GPUs' share)"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="seed of everything random")
    devices: int = Field(1, ge=1, le=4096, description="processes per machine")
    nodes: int = Field(1, ge=1, le=65_536, description="machines")
    accelerator: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to train")
    log_every: int = Field(50, ge=1, le=1_000_000, description="batches between log lines")
    save_every: int = Field(1, ge=1, le=_EPOCHS, description="epochs between checkpoints")


class EvaluationConfig(Options):
    """The ``evaluation`` section: what is scored, and which weights are kept as best."""

    every: int = Field(0, ge=0, le=_EPOCHS, description="epochs between scores while training; 0: only at the end")
    selection: Literal["last", "validation", "test"] = Field(
        "last",
        description="which weights are final: the last epoch, the best on held-out training identities, or (as in many "
        "releases, not for reported results) the best on the test set",
    )
    batch_size: int = Field(64, ge=1, le=1_000_000, description="images per forward pass")
    mirror: bool = Field(False, description="average each image with its mirror image")
    protocols: tuple[str, ...] | None = Field(None, description="names or wildcards; all of the dataset's if not given")
    feature: str | None = Field(None, description="which of the method's features; its default if not given")
    metric: Literal["cosine", "euclidean"] = Field("cosine", description="distance")


class Expected(Options):
    """A published score, where it was printed, and how it was obtained as far as a page says; percent."""

    protocol: str
    rank1: Percent | None = None
    mAP: Percent | None = None
    mINP: Percent | None = None
    source: str
    trials: int | None = Field(
        None, ge=1, le=1000, description="galleries or RegDB splits averaged; not given: unknown"
    )
    mirror: bool | None = Field(None, description="mirror images averaged at test; not given: unknown")
    epoch: str | None = Field(None, min_length=1, description="which epoch was scored; not given: unknown")
    tolerance: Percent | None = Field(None, description="points within which the source's own repeats lie")
    tolerance_source: str | None = Field(None, min_length=1, description="who says so")

    @model_validator(mode="after")
    def _tolerance_has_a_source(self) -> Expected:
        if (self.tolerance is None) != (self.tolerance_source is None):
            raise ValueError("tolerance and tolerance_source belong together")
        return self


class TrainsOn(Options):
    """How large the published training set is, and who says so. A run on another number warns."""

    images: int | None = Field(None, ge=1, description="training images of both modalities")
    tracklets: int | None = Field(None, ge=1, description="training tracklets of both modalities")
    identities: int = Field(ge=1, description="training identities")
    source: str

    @model_validator(mode="after")
    def _counts_one_thing(self) -> TrainsOn:
        if (self.images is None) == (self.tracklets is None):
            raise ValueError("state either images or tracklets")
        return self

    @property
    def records(self) -> int:
        """Training records: images, or the tracklets of a video set."""
        return self.images or self.tracklets or 0


def _typed_sampler(values: object) -> object:
    return sampler_options(values) if isinstance(values, Mapping) else values


# The options of the sampler that the section names, and no other's.
SamplerSection = Annotated[SerializeAsAny[SamplerOptions], BeforeValidator(_typed_sampler)]
