"""The demonstration's material: real reviews, a task for a small base model, and a lexicon.

Everything works offline with the packages of the extra `demo`: short Rotten Tomatoes reviews,
a few-shot task that a base model can complete, and a word list as the cheapest candidate.
"""

from __future__ import annotations

from smartsql.demo.lexicon import lexicon
from smartsql.demo.reviews import human_labels, reviews
from smartsql.demo.task import LABELS, TASK_PROMPT
from smartsql.demo.told import told

__all__ = ["LABELS", "TASK_PROMPT", "human_labels", "lexicon", "reviews", "told"]
