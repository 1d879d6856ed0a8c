"""Who calls, and what they may."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rights:
    """What a caller may; None stands for no limit of its own."""

    pipelines: frozenset[str] | None = None
    max_runs: int | None = None
    runs_per_minute: int | None = None
    own_api_key: bool = True

    def may_call(self, pipeline: str) -> bool:
        """Tell whether a pipeline is one of the caller's."""
        return self.pipelines is None or pipeline in self.pipelines


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller. The name says how it was told: `billing` by a token, `jwt:alice`, `spiffe://...`, `dns:gateway`."""

    name: str
    rights: Rights = Rights()


# All callers of a service that does not ask who they are.
ANYONE = Principal("anyone")
