"""What all option models share: strict keys, finite numbers, and options that do nothing are refused."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationInfo, model_validator

# Validation context under which idle options pass: only for reading what an earlier gloam saved.
IDLE_ALLOWED = {"idle_allowed": True}


class AllBut(Container[Any]):
    """Everything other than some values: for names that users' packages add to.

    Args:
        *values: what it does not contain.
    """

    def __init__(self, *values: Any) -> None:
        self._values = values

    def __contains__(self, value: object) -> bool:
        return value not in self._values


class Options(BaseModel):
    """A frozen set of options; a field's description is its ``--help`` text.

    ``idle_when`` names what an option needs: option -> (another option, its values under which the first does
    nothing). An idle option that differs from its default is an error, because it would change nothing in silence.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    idle_when: ClassVar[Mapping[str, tuple[str, Container[Any]]]] = {}

    def idle(self) -> dict[str, str]:
        """Options that are set but cannot act -> why."""
        found = {}
        for option, (other, values) in self.idle_when.items():
            if getattr(self, other) in values and not self._is_default(option):
                found[option] = f"while {other} is {getattr(self, other)}"
        return found

    def _is_default(self, option: str) -> bool:
        field = type(self).model_fields[option]
        return bool(getattr(self, option) == field.get_default(call_default_factory=True))

    @model_validator(mode="after")
    def _acts(self, info: ValidationInfo) -> Self:
        if not (info.context or {}).get("idle_allowed") and (found := self.idle()):
            raise ValueError(
                "; ".join(f"{option} does nothing {why}: leave one of them out" for option, why in found.items())
            )
        return self
