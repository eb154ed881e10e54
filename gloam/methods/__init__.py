"""Published methods, one file each. ``create_method("agw", num_classes=395)`` builds one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gloam.errors import GloamError
from gloam.exports import lazy_exports
from gloam.methods.contract import EpochContext, Method, MethodOptions, create_options
from gloam.registry import Registry

if TYPE_CHECKING:
    from gloam.methods.agw import AGW, AGWOptions
    from gloam.methods.base import BaseOptions, BaseSoftmax
    from gloam.methods.cgrnet import CGRNet, CGRNetOptions
    from gloam.methods.cluster_contrast import ClusterContrast, ClusterContrastOptions
    from gloam.methods.contract import (
        BackboneOptions,
        BaselineOptions,
        ClusterOptions,
        OnlyWith,
        Plateau,
        StemOptions,
        TripletOptions,
    )
    from gloam.methods.contrastive_baselines import (
        NTXent,
        NTXentOptions,
        SimSiam,
        SimSiamOptions,
        TwoViewMethod,
        TwoViewOptions,
    )
    from gloam.methods.ddag import DDAG, DDAGOptions
    from gloam.methods.m3reid import M3ReID, M3ReIDOptions
    from gloam.methods.metaprd import MetaPRD, MetaPRDOptions
    from gloam.methods.mmgl import MMGL, MMGLOptions, export_backbone
    from gloam.methods.pf_mgcd import PFMGCD, PFMGCDOptions
    from gloam.methods.spcl import SpCL, SpCLOptions
    from gloam.methods.wsl_vireid import WSLVIReID, WSLVIReIDOptions

# File -> what it offers: imported when one of the names is asked for.
_NAMES = {
    "agw": "AGW AGWOptions",
    "base": "BaseOptions BaseSoftmax",
    "cgrnet": "CGRNet CGRNetOptions",
    "cluster_contrast": "ClusterContrast ClusterContrastOptions",
    "contract": (
        "BackboneOptions BaselineOptions ClusterOptions EpochContext Method MethodOptions OnlyWith Plateau StemOptions "
        "TripletOptions create_options"
    ),
    "contrastive_baselines": "NTXent NTXentOptions SimSiam SimSiamOptions TwoViewMethod TwoViewOptions",
    "ddag": "DDAG DDAGOptions",
    "m3reid": "M3ReID M3ReIDOptions",
    "metaprd": "MetaPRD MetaPRDOptions",
    "mmgl": "MMGL MMGLOptions export_backbone",
    "pf_mgcd": "PFMGCD PFMGCDOptions",
    "spcl": "SpCL SpCLOptions",
    "wsl_vireid": "WSLVIReID WSLVIReIDOptions",
}

__all__ = [
    "AGW",
    "DDAG",
    "MMGL",
    "PFMGCD",
    "AGWOptions",
    "BackboneOptions",
    "BaseOptions",
    "BaseSoftmax",
    "BaselineOptions",
    "CGRNet",
    "CGRNetOptions",
    "ClusterContrast",
    "ClusterContrastOptions",
    "ClusterOptions",
    "DDAGOptions",
    "EpochContext",
    "M3ReID",
    "M3ReIDOptions",
    "MMGLOptions",
    "MetaPRD",
    "MetaPRDOptions",
    "Method",
    "MethodOptions",
    "NTXent",
    "NTXentOptions",
    "OnlyWith",
    "PFMGCDOptions",
    "Plateau",
    "SimSiam",
    "SimSiamOptions",
    "SpCL",
    "SpCLOptions",
    "StemOptions",
    "TripletOptions",
    "TwoViewMethod",
    "TwoViewOptions",
    "WSLVIReID",
    "WSLVIReIDOptions",
    "create_method",
    "create_options",
    "export_backbone",
    "list_methods",
    "register",
]


def _check(name: str, entry: Any) -> None:
    if not (isinstance(entry, type) and issubclass(entry, Method)):
        raise GloamError(f"The method {name!r} must be a subclass of gloam.methods.Method, not {entry!r}.")


registry: Registry[type[Method[Any]]] = Registry("method", __name__, check=_check)
register = registry.register
get_method = registry.get


def list_methods(pattern: str = "*") -> list[str]:
    """Names of all methods that match a shell wildcard."""
    return registry.names(pattern)


def create_method(name: str, num_classes: int, **options: Any) -> Method[Any]:
    """Build a method with fresh weights.

    Args:
        name: registered name, e.g. ``"agw"``.
        num_classes: number of training identities.
        **options: the method's flags (``create_method("agw", 395, wrt="exact")``).

    Raises:
        GloamError: unknown method or option, or an option that acts only with another that is not set.
    """
    cls = get_method(name)
    checked = create_options(cls, options)
    checked.refuse_idle()
    return cls(num_classes, checked)


__getattr__, __dir__ = lazy_exports(__name__, _NAMES)
