"""The price before the spend: what a call would cost, estimated without asking a model.

`reckoning` says how many calls of each model a statement takes, at least, expected and at most,
from what is known before the first; `figures` makes them tokens, money and seconds.
"""

from smartsql.preview.figures import ModelPreview, Preview, preview

__all__ = ["ModelPreview", "Preview", "preview"]
