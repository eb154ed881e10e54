"""The ``augment`` section of a recipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from gloam.options import Options

# Channel means of two datasets that published random erasing fills with. Both are written into the NORMALISED tensor.
CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
IMAGENET_FILL = (0.485, 0.456, 0.406)

Probability = Annotated[float, Field(ge=0, le=1)]
Pixels = Annotated[int, Field(ge=0, le=1000)]
Tries = Annotated[int, Field(ge=1, le=10_000)]
Shares = tuple[Probability, Probability]
Factors = tuple[Annotated[float, Field(ge=0, le=1000)], Annotated[float, Field(ge=0, le=1000)]]
Level = Annotated[float, Field(ge=-1000, le=1000)]
Triple = tuple[Level, Level, Level]
AspectDraw = Literal["uniform", "log_uniform"]
Channels = Literal["none", "exchange", "exchange_or_grey", "adaptive_grey"]
Style = Literal["none", "one", "all"]


class ViewConfig(Options):
    """How one view of an image is made. Steps run in the order of the fields; a clip shares every draw.

    *Source*: the training transforms of AGW, CAJ, WSL-VIReID, MetaPRD and M3-ReID. Steps that act on each pixel
    commute with crop and flip, so one order serves all of them.
    """

    weighted_grey: Probability = Field(
        0.0, description="probability of a grey image with three random weights (M3-ReID)"
    )
    random_grey: Probability = Field(0.0, description="probability of a luminance-grey image")
    pad: Pixels = Field(0, description="pixels added on every side before the random crop")
    flip: Probability = Field(0.0, description="probability of a horizontal flip")
    style_jitter: bool = Field(
        False,
        description="before normalisation: scale each channel by style_range, permute channels, clamp (WSL-VIReID)",
    )
    erase: Probability = Field(0.0, description="probability of random erasing, after normalisation")
    erase_area: Shares = Field((0.02, 0.4), description="range of the erased fraction of the image")
    erase_aspect: Factors = Field((0.3, 1 / 0.3), description="range of height / width of the erased rectangle")
    erase_aspect_draw: AspectDraw = Field(
        "uniform", description="how the aspect is drawn: uniform (CAJ, SpCL) or log_uniform (torchvision, M3-ReID)"
    )
    erase_tries: Tries = Field(100, description="attempts to find a rectangle that fits")
    erase_fill: Triple = Field(CIFAR_MEAN, description="value per channel, written into the normalised image")
    channels: Channels = Field(
        "none",
        description="after erasing: exchange copies one of the channels into all three; exchange_or_grey has the "
        "luminance mix as fourth outcome; adaptive_grey takes that outcome with probability grey_probability and else "
        "leaves the image as it is (CAJ)",
    )
    grey_probability: Probability = Field(0.5, description="see adaptive_grey")
    style: Style = Field(
        "none", description="last: multiply by one number of style_range, or by one per channel (M3-ReID)"
    )
    style_range: Factors = Field((0.5, 1.5), description="range of the factors of style and style_jitter")


class ViewOverrides(Options):
    """Fields of ``ViewConfig`` (described there), each optional: None keeps the value of the enclosing section.

    None, not "unset": a recipe that was saved with all its defaults then loads as the same augmentation.
    """

    weighted_grey: Probability | None = None
    random_grey: Probability | None = None
    pad: Pixels | None = None
    flip: Probability | None = None
    style_jitter: bool | None = None
    erase: Probability | None = None
    erase_area: Shares | None = None
    erase_aspect: Factors | None = None
    erase_aspect_draw: AspectDraw | None = None
    erase_tries: Tries | None = None
    erase_fill: Triple | None = None
    channels: Channels | None = None
    grey_probability: Probability | None = None
    style: Style | None = None
    style_range: Factors | None = None


# Option of a view -> whether anything in the view reads it.
_NEEDS: dict[str, tuple[Callable[[ViewConfig], bool], str]] = {
    **dict.fromkeys(
        ("erase_area", "erase_aspect", "erase_aspect_draw", "erase_tries", "erase_fill"),
        (lambda view: view.erase > 0, "while erase is 0"),
    ),
    "grey_probability": (lambda view: view.channels == "adaptive_grey", "without channels: adaptive_grey"),
    "style_range": (lambda view: view.style != "none" or view.style_jitter, "without style and style_jitter"),
}


class AugmentConfig(ViewConfig):
    """Augmentation of a training batch.

    The fields of ``ViewConfig`` given at the top hold for all images; ``visible`` and ``infrared`` change them for
    one modality. With ``visible_views: 2`` every visible image gives a second row, made independently and changed by
    ``second_visible``; the same for infrared. Normalisation always happens.

    Examples:
        AGW, DDAG, MMGL: ``{pad: 10, flip: 0.5}``.
        CAJ: ``{pad: 10, flip: 0.5, erase: 0.5, infrared: {channels: adaptive_grey}, visible_views: 2}``.
        WSL-VIReID on RegDB: CAJ plus ``infrared_views: 2``.
        Cluster Contrast: ``{pad: 10, flip: 0.5, erase: 0.5, erase_fill: [0.485, 0.456, 0.406]}``.
        M3-ReID: ``{pad: 5, flip: 0.5, erase: 0.5, erase_area: [0.02, 0.33], erase_aspect: [0.3, 3.3],
        erase_aspect_draw: log_uniform, erase_tries: 10, erase_fill: [0, 0, 0],
        visible: {weighted_grey: 0.5, style: all}, infrared: {style: one}}``.
    """

    pad_mode: Literal["zeros", "replicate"] = Field(
        "zeros", description="what padding holds: black, or the border pixel"
    )
    visible: ViewOverrides = Field(ViewOverrides(), description="changes for visible images")
    infrared: ViewOverrides = Field(ViewOverrides(), description="changes for infrared images")
    visible_views: Literal[1, 2] = Field(1, description="rows per visible image")
    infrared_views: Literal[1, 2] = Field(1, description="rows per infrared image")
    second_visible: ViewOverrides = Field(
        ViewOverrides(channels="exchange"), description="changes for the second row of visible images, over visible"
    )
    second_infrared: ViewOverrides = Field(
        ViewOverrides(style_jitter=True), description="changes for the second row of infrared images, over infrared"
    )

    def view(self, modality: Literal["visible", "infrared"], second: bool = False) -> ViewConfig:
        """The resolved pipeline of one modality and view."""
        values = {name: getattr(self, name) for name in ViewConfig.model_fields}
        sections = [modality, f"second_{modality}"] if second else [modality]
        for section in sections:
            overrides: BaseModel = getattr(self, section)
            values.update({name: value for name, value in overrides if value is not None})
        return ViewConfig(**values)

    @model_validator(mode="after")
    def _resolves(self) -> AugmentConfig:
        for modality in ("visible", "infrared"):
            for second in (False, True):
                view = self.view(modality, second)
                for name in ("erase_area", "erase_aspect", "style_range"):
                    low, high = getattr(view, name)
                    if not 0 <= low <= high:
                        raise ValueError(f"{name} must be a range 0 <= low <= high, not {low}, {high}")
        return self

    def idle(self) -> dict[str, str]:
        """Options of views that are never made, or of steps that no view takes."""
        found = {}
        made = {"visible": [self.view("visible")], "infrared": [self.view("infrared")]}
        for modality, count in (("visible", self.visible_views), ("infrared", self.infrared_views)):
            second = f"second_{modality}"
            if count == 2:
                made[second] = [self.view(modality, second=True)]  # type: ignore[arg-type]
                made[modality] += made[second]
            elif not self._is_default(second):
                found[second] = f"while {modality}_views is 1"
        for option, (acts, reason) in _NEEDS.items():
            if not self._is_default(option) and not any(acts(view) for views in made.values() for view in views):
                found[option] = reason
            for section, views in made.items():
                if getattr(getattr(self, section), option) is not None and not any(map(acts, views)):
                    found[f"{section}.{option}"] = reason
        if not self._is_default("pad_mode") and not any(view.pad for views in made.values() for view in views):
            found["pad_mode"] = "while pad is 0"
        return found
