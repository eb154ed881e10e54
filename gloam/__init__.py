"""gloam: person re-identification across light, cameras and supervision levels.

Importing this package opens nothing and imports neither torch nor Lightning; the public names below load on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from gloam.datasets import list_datasets, load_dataset
    from gloam.errors import GloamError
    from gloam.evaluation.ranking import rank_features, rank_metrics
    from gloam.inference.model import load_model
    from gloam.methods import create_method, list_methods

# Public name -> module that defines it.
_PUBLIC = {
    "GloamError": "gloam.errors",
    "create_method": "gloam.methods",
    "list_datasets": "gloam.datasets",
    "list_methods": "gloam.methods",
    "load_dataset": "gloam.datasets",
    "load_model": "gloam.inference.model",
    "rank_features": "gloam.evaluation.ranking",
    "rank_metrics": "gloam.evaluation.ranking",
}

__all__ = [
    "GloamError",
    "__version__",
    "create_method",
    "list_datasets",
    "list_methods",
    "load_dataset",
    "load_model",
    "rank_features",
    "rank_metrics",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'gloam' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
