"""gloam: person re-identification across modalities, cameras and supervision levels.

Importing this package opens nothing and imports neither torch nor Lightning; the public names below load on first use.
``gloam.search`` is a room of the house (``gloam.search.distances`` ...) and, called, the function.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

import gloam.search as _search_room

__version__ = "0.1.0"

if TYPE_CHECKING:
    from gloam.datasets import list_datasets, load_dataset
    from gloam.errors import GloamError
    from gloam.evaluation.calibration import Calibration
    from gloam.evaluation.ranking import rank_features, rank_metrics
    from gloam.gallery.gallery import Gallery, open_gallery
    from gloam.gallery.where import Where
    from gloam.inference.calibrating import calibrate
    from gloam.inference.comparison import Matches, cluster, draw, evaluate, rerank, search
    from gloam.inference.features import Features
    from gloam.inference.loading import load_model
    from gloam.inference.model import Model
    from gloam.methods import create_method, list_methods
    from gloam.recipes.recipe import list_recipes, load_recipe
    from gloam.serve.client import Client
    from gloam.training.run import train

# Public name -> module that defines it.
_PUBLIC = {
    "Client": "gloam.serve.client",
    "Calibration": "gloam.evaluation.calibration",
    "Features": "gloam.inference.features",
    "Gallery": "gloam.gallery.gallery",
    "GloamError": "gloam.errors",
    "Matches": "gloam.inference.comparison",
    "Model": "gloam.inference.model",
    "Where": "gloam.gallery.where",
    "calibrate": "gloam.inference.calibrating",
    "cluster": "gloam.inference.comparison",
    "create_method": "gloam.methods",
    "draw": "gloam.inference.comparison",
    "evaluate": "gloam.inference.comparison",
    "list_datasets": "gloam.datasets",
    "list_methods": "gloam.methods",
    "list_recipes": "gloam.recipes.recipe",
    "load_dataset": "gloam.datasets",
    "load_model": "gloam.inference.loading",
    "load_recipe": "gloam.recipes.recipe",
    "open_gallery": "gloam.gallery.gallery",
    "rank_features": "gloam.evaluation.ranking",
    "rank_metrics": "gloam.evaluation.ranking",
    "rerank": "gloam.inference.comparison",
    "train": "gloam.training.run",
}

__all__ = [
    "Calibration",
    "Client",
    "Features",
    "Gallery",
    "GloamError",
    "Matches",
    "Model",
    "Where",
    "__version__",
    "calibrate",
    "cluster",
    "create_method",
    "draw",
    "evaluate",
    "list_datasets",
    "list_methods",
    "list_recipes",
    "load_dataset",
    "load_model",
    "load_recipe",
    "open_gallery",
    "rank_features",
    "rank_metrics",
    "rerank",
    "search",
    "train",
]


class _SearchRoom(types.ModuleType):
    """Importing ``gloam.search.distances`` binds the package under the function's name, so the package is callable."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return importlib.import_module("gloam.inference.comparison").search(*arguments, **options)


sys.modules[_search_room.__name__].__class__ = _SearchRoom
if not TYPE_CHECKING:
    search = _search_room


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'gloam' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
