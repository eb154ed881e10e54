"""Any recipe, small enough for a test, on drawn people."""

from __future__ import annotations

from pathlib import Path

from gloam.drawing.dataset import draw_dataset
from gloam.recipes.recipe import load_recipe
from gloam.sampling import IdentityBatches

HEIGHT, WIDTH = 96, 48
# Flags that make a method fit the tiny data; clusters of few images need small neighbourhoods.
CLUSTERS = {"k1": 5, "k2": 2, "min_samples": 2, "eps": 0.7}
SMALL = {
    "pf_mgcd": {"num_parts": 3, "warmup_epochs": 0},
    "cluster_contrast": CLUSTERS,
    "spcl": CLUSTERS,
    "metaprd": {**CLUSTERS, "gcn_hidden": 16},
    "simsiam": {"hidden_dim": 32, "out_dim": 32, "predictor_dim": 8},
    "ntxent": {"hidden_dim": 32},
}
# Of those, flags that change nothing in a recipe and are refused there.
IDLE = {"pf_mgcd_alone": ["warmup_epochs"], "cluster_contrast_infomap": ["k2"], "metaprd": ["gcn_hidden"]}


def draw_people(root: Path) -> Path:
    """sysu_mm01, hitsz_vcm and market1501 side by side below ``root``."""
    for layout, ids, images in (("sysu_mm01", 10, 2), ("hitsz_vcm", 8, 1), ("market1501", 12, 3)):
        draw_dataset(layout, root / layout, ids=ids, images=images, height=HEIGHT, width=WIDTH, progress=False)
    return root


def small_words(name: str, root: Path, epochs: int = 1) -> list[str]:
    """Flags that shrink a recipe to seconds; its last stage has ``epochs``, stages before it one."""
    recipe = load_recipe(name)
    words = ["--data.root", str(root / recipe.data.name), "--data.height", str(HEIGHT), "--data.width", str(WIDTH)]
    words += [
        "--data.workers",
        "0",
        "--weights",
        "none",
        "--quiet",
        "--train.accelerator",
        "cpu",
        "--train.precision",
        "32",
    ]
    if not recipe.stages or not all("epochs" in stage.get("train", {}) for stage in recipe.stages.values()):
        words += ["--train.epochs", str(epochs)]
    words += ["--train.iterations", "2"]
    if isinstance(recipe.sampler, IdentityBatches):
        words += ["--sampler.identities", "2", "--sampler.instances", "2"]
    else:
        words += ["--sampler.batch-size", "4"]
    flags = {"arch": "tiny", **SMALL.get(recipe.method_name, {})}
    for idle in IDLE.get(name.partition("/")[2], ()):
        flags.pop(idle)
    words += [word for key, value in flags.items() for word in (f"--method.{key.replace('_', '-')}", str(value))]
    for stage, changes in recipe.stages.items():
        last = stage == list(recipe.stages)[-1]
        words += [f"--stages.{stage}.train.epochs", str(epochs if last else 1)]
        if "method" in changes and changes["method"].get("name", recipe.method_name) != recipe.method_name:
            words += [f"--stages.{stage}.method.arch", "tiny"]
        if "identities" in changes.get("sampler", {}):
            words += [f"--stages.{stage}.sampler.identities", "2", f"--stages.{stage}.sampler.instances", "2"]
        if "iterations" in changes.get("train", {}):
            words += [f"--stages.{stage}.train.iterations", "2"]
    return words
