"""`[replay]`: what is kept, and what is learned from at a time."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rlagents.tables import Int, Table


class ReplayConfig(Table):
    """`[replay]`: what is kept, and how much of it is learned from at a time."""

    capacity: Annotated[Int, Field(ge=100, le=10**9)] = 100_000
    """Transitions kept, over all environments."""
    batch_size: Annotated[Int, Field(ge=1, le=65_536)] = 32
    """Transitions of one update."""
