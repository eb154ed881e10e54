"""Weights that carry their origin: a folder in the layout of a Hugging Face model repository, written and read back.

``model.safetensors`` holds tensors and, in its header, everything needed to use them; ``config.json`` says the same for
people and programs, ``README.md`` is the model card, ``SHA256SUMS`` the digest of each file. Reading builds a method
that is registered here and fills it with numbers: no code and no pickle comes out of the folder.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from gloam.atomic import atomic_path, write_text
from gloam.errors import GloamError
from gloam.evaluation.evaluator import Results
from gloam.inference.checkpoint import Checkpoint, choose_feature, find_checkpoint, load_state, restore_method
from gloam.inference.export import METADATA, metadata, read_metadata, without_plugins, write_safetensors
from gloam.inference.model import Model, Precision, weights_digest
from gloam.inference.model_card import model_card
from gloam.methods import get_method
from gloam.methods.contract import create_options
from gloam.recipes.recipe import Recipe, validate
from gloam.safe_load import load_safetensors

WEIGHTS, CONFIG, CARD, RECIPE, SUMS = "model.safetensors", "config.json", "README.md", "recipe.yaml", "SHA256SUMS"
FILES = (WEIGHTS, CONFIG, RECIPE, CARD, SUMS)
NEEDED = (SUMS, CONFIG, WEIGHTS)  # of those, what loading asks for


def publish(
    run: str | Path, folder: Path, *, data_root: Path | None = None, licence: str = "other", force: bool = False
) -> Path:
    """Write a run's weights, configuration and model card.

    Args:
        run: run folder or checkpoint file.
        folder: where to; it is created, and must be empty or hold an earlier release of gloam.
        data_root: the run's dataset, for its counts; without it those of the checkpoint are told.
        licence: of the weights, as the Hugging Face Hub names licences (``mit``, ``cc-by-nc-4.0``).
        force: publish a run without scores too.

    Returns:
        The folder.

    Raises:
        GloamError: no checkpoint, no scores, or a folder with other files.
    """
    path = find_checkpoint(run)
    checkpoint = Checkpoint.load(path)
    method = restore_method(checkpoint, str(path)).eval()
    model = Model(method, checkpoint.stage_recipe(), name=Path(run).resolve().name)
    scores = _scores(Path(run))
    if scores is None and not force:
        raise GloamError(
            f"{run} has no scores (results.json, evaluation.json): a card without scores helps nobody. Run gloam "
            f"evaluate {run} first, or give --force."
        )
    if folder.exists() and (others := sorted({entry.name for entry in folder.iterdir()} - set(FILES))):
        raise GloamError(f"{folder} holds other files ({', '.join(others[:3])}). Give a folder of its own.")
    about = {
        **metadata(model),
        "model_type": "gloam",
        "library_name": "gloam",
        "licence": licence,
        "trained_on": _trained_on(model, checkpoint, data_root),
        "scores": None if scores is None else scores.to_dict(),
        "parameters": sum(parameter.numel() for parameter in method.parameters()),
        "features_of_people": _features_of_people(checkpoint),
    }
    with tempfile.TemporaryDirectory(prefix="gloam-publish-") as drafts:
        draft = Path(drafts)
        write_safetensors(method, draft / WEIGHTS, about)
        write_text(draft / RECIPE, _travelling(checkpoint.recipe).to_yaml())
        write_text(draft / CONFIG, json.dumps(about, indent=2) + "\n")
        digests = {name: sha256(draft / name) for name in (WEIGHTS, CONFIG, RECIPE)}
        write_text(draft / CARD, model_card(about, scores, digests))
        digests[CARD] = sha256(draft / CARD)
        write_text(draft / SUMS, "".join(f"{digest}  {name}\n" for name, digest in digests.items()))
        # The sums come last: a folder whose writing was interrupted does not pass for whole.
        (folder / SUMS).unlink(missing_ok=True)
        for name in FILES:
            with atomic_path(folder / name) as temporary:
                shutil.copyfile(draft / name, temporary)
    return folder


def is_published(path: Path) -> bool:
    """Whether a path is a released folder, or a file of weights that gloam wrote."""
    return path.suffix == ".safetensors" or (path.is_dir() and (path / CONFIG).is_file())


def load_published(
    path: Path,
    *,
    name: str = "",
    feature: str | None = None,
    mirror: bool | None = None,
    precision: Precision = "32",
) -> Model:
    """The model in a released folder (its digests are checked) or in a safetensors file that gloam wrote.

    Args:
        path: folder or file.
        name: what messages call the model; the path if not given.
        feature: one of the method's features.
        mirror: see :class:`~gloam.inference.model.Model`.
        precision: arithmetic of the forward pass.

    Raises:
        GloamError: a missing or changed file, or weights that are not what they say.
    """
    if path.is_dir():
        verify(path)
        path = path / WEIGHTS
    if not path.is_file():
        raise GloamError(f"There is no weight file {path}.")
    about = _header(path)
    state = load_safetensors(path)
    if weights_digest(state) != about.get("weights"):
        raise GloamError(
            f"The tensors in {path} are not those that were released: their digest differs. Copy it again."
        )
    try:
        cls = get_method(about["method"])
        method = cls(int(about["num_classes"]), create_options(cls, about["options"]))
    except (KeyError, TypeError, ValueError) as error:
        raise GloamError(f"The header of {path} is incomplete ({error}). Publish the run again.") from error
    load_state(method, state, str(path))
    choose_feature(method, about.get("feature", method.test_feature) if feature is None else feature)
    recipe = validate(without_plugins(about.get("recipe")), str(path))
    mirror = bool(about.get("mirror")) if mirror is None else mirror
    return Model(method.eval(), recipe, name=name or str(path), mirror=mirror, precision=precision)


def verify(folder: Path) -> None:
    """Check the digests of what loading reads.

    Raises:
        GloamError: a file that is missing or differs, by name.
    """
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise GloamError(
            f"{folder} lacks {', '.join(missing)}. A released model is {', '.join(FILES)}: copy all of them."
        )
    told: dict[str, str] = {}
    for line in (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        told[name.strip()] = digest.strip()
    wrong = [name for name in (CONFIG, WEIGHTS) if told.get(name) != sha256(folder / name)]
    if wrong:
        raise GloamError(
            f"{', '.join(wrong)} in {folder} differs from its digest in {SUMS}: damaged or changed. Get it again."
        )


def sha256(file: Path) -> str:
    """Hexadecimal digest of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _header(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as opened:
            text = (opened.metadata() or {}).get(METADATA)
    except (SafetensorError, OSError) as error:
        raise GloamError(f"{path} could not be read ({error}). Copy it again.") from error
    return read_metadata(text, path)


def _scores(run: Path) -> Results | None:
    folder = run if run.is_dir() else run.parent.parent
    found = [folder / name for name in ("results.json", "evaluation.json") if (folder / name).is_file()]
    return Results.load(found[0]) if found else None


def _trained_on(model: Model, checkpoint: Checkpoint, root: Path | None) -> dict[str, Any]:
    """Counts and terms of the training data."""
    from gloam.datasets import get_dataset

    dataset = get_dataset(model.recipe.data.name)
    images, identities = len(checkpoint.labels), len(checkpoint.label_map) or checkpoint.num_classes
    counts = {"train_ids": identities, "train_records": images}
    if root is not None:
        counts = {key: value for key, value in model.load_splits(root).counts().items() if value}
    return {
        "dataset": dataset.name,
        "title": dataset.title,
        "counts": counts,
        "fingerprint": checkpoint.fingerprint,
        "licence": dataset.licence,
        "page": dataset.page,
        "notice": dataset.notice,
    }


def _features_of_people(checkpoint: Checkpoint) -> list[str]:
    """State with a row per training image or identity that no optimiser wrote: memories."""
    rows = {len(checkpoint.labels), checkpoint.num_classes}
    return [
        f"{name} ({' x '.join(map(str, value.shape))})"
        for name, value in checkpoint.method.items()
        if getattr(value, "ndim", 0) >= 2
        and rows & set(value.shape[:-1])
        and value.is_floating_point()
        and not name.endswith((".weight", ".bias"))
    ]


def _travelling(recipe: Recipe) -> Recipe:
    """A recipe without folders of this machine."""
    changes: dict[str, Any] = {"data.root": None, "data.cache": "auto"}
    if recipe.weights not in ("imagenet", "none"):
        changes["weights"] = Path(recipe.weights).name or "none"
    return recipe.with_changes(changes)
