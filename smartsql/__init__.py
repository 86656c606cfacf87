"""Language models over SQL tables, with a statistical guarantee and at the least cost.

`SELECT smart_llm(review, 0.1, 0.95) FROM reviews` answers every row so that, with probability at
least 0.95, at most a tenth of the rows differ from what the reference model would have said.

The root exports what a user types. Heavy libraries are loaded when they are first needed.
"""

from __future__ import annotations

__version__ = "0.1.0"
