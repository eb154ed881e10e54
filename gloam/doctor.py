"""What ``gloam doctor`` shows: everything that a bug report needs and that decides how fast a machine is."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gloam import __version__, plugins

if TYPE_CHECKING:
    from rich.table import Table

    from gloam.registry import Registry

_PACKAGES = ("torch", "torchvision", "timm", "lightning", "numpy", "scipy", "scikit-learn", "numba", "pillow")
# Optional package -> what it is for and which extra installs it.
_OPTIONAL = {
    "infomap": "InfoMap clustering (extra: infomap)",
    "lightly": "self-supervised baselines (extra: ssl)",
    "av": "video files (extra: video)",
    "faiss": "search codes of galleries (extra: search)",
    "onnx": "exporting to ONNX (extra: onnx)",
    "onnxscript": "exporting to ONNX (extra: onnx)",
    "onnxruntime": "running ONNX files (extra: onnx)",
    "huggingface_hub": "models on the Hugging Face Hub (extra: hub)",
    "fastapi": "the search page of galleries (extra: serve)",
    "uvicorn": "the search page of galleries (extra: serve)",
    "qdrant_client": "galleries in a Qdrant cluster (extra: qdrant)",
    "wandb": "logger wandb (extra: loggers)",
    "mlflow": "logger mlflow (extra: loggers)",
}


def doctor_table() -> Table:
    """Versions, devices, cache folder, optional packages and plugins of this machine as a rich table."""
    import torch
    from rich.markup import escape
    from rich.table import Table

    from gloam.pixels.cache import cache_folder

    table = Table("what", "found", title="gloam doctor", title_justify="left")
    table.add_row("gloam", __version__)
    table.add_row("Python", f"{sys.version.split()[0]} on {platform.platform()}")
    for package in _PACKAGES:
        table.add_row(package, importlib.metadata.version(package))
    table.add_row("CPU threads", f"{torch.get_num_threads()} of {os.cpu_count()} for torch")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            table.add_row(f"GPU {index}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    else:
        table.add_row("GPU", "none: everything runs on the CPU")
    folder = cache_folder()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    table.add_row("pixel cache", f"{folder} ({shutil.disk_usage(existing).free / 2**30:.0f} GiB free)")
    for package, purpose in _OPTIONAL.items():
        state = "installed" if importlib.util.find_spec(package) else "not installed"
        table.add_row(package, f"{state}: {purpose}")
    for what, state in _plugins():
        table.add_row(what, escape(state))
    return table


def _plugins() -> Iterator[tuple[str, str]]:
    """What users' packages and modules add, what could not be loaded, and names that two of them claim."""
    registries: list[Registry[Any]] = [importlib.import_module(module).registry for module in plugins.GROUPS.values()]
    clashes = [clash for registry in registries for clash in registry.clashes()]
    for plugin in plugins.found():
        state = "loaded" if plugin.failure is None else f"FAILED: {plugin.failure}"
        yield "plugin", f"{plugin.name} ({plugin.source}): {state}"
    for clash in clashes:
        yield "plugin", f"FAILED: {clash}"
    if not plugins.found():
        yield "plugins", "none (docs/extend.md)"
