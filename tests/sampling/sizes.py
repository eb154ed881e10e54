"""Options of any sampler for a wanted batch size."""

from __future__ import annotations

from typing import Any

from gloam.sampling import IdentityBatches, get_sampler


def sized(name: str, identities: int = 3, instances: int = 4) -> dict[str, Any]:
    """P x K where the sampler looks for identities, else as many rows."""
    if issubclass(get_sampler(name).Options, IdentityBatches):
        return {"name": name, "identities": identities, "instances": instances}
    return {"name": name, "batch_size": identities * instances}
