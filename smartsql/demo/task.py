"""The question that the demonstration asks of every review."""

from __future__ import annotations

LABELS = ("positive", "negative")

TASK_PROMPT = """\
Movie reviews, positive or negative:
a joyless , tedious mess . = negative
funny , warm and beautifully acted . = positive
a small film with a big heart that stays with you . = positive
it never finds its tone and runs out of jokes long before the end . = negative
{input} ="""
"""Few-shot completion: a base model follows examples, not instructions.

The examples are our own, written in the manner of the reviews, balanced, and as few as leave the
model balanced too: its answers on the reviews are about as often positive as negative. The part
before the review is computed once for all reviews.
"""
