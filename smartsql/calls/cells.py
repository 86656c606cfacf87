"""The distinct cells of one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from smartsql.tasks import Task


@dataclass(frozen=True, slots=True)
class Cells:
    """The distinct cells of a call, in the order of their digests.

    So nothing that is decided later depends on how the table is stored.

    Attributes:
        texts: one text for each; string array of shape (n_prompts,).
        task: how a cell becomes a prompt.
        digests: of the rendered prompts, ascending; 16 bytes each.
    """

    texts: pa.Array
    task: Task
    digests: Sequence[bytes]
