"""Smart calls in a tree: finding them, where they may stand, and what is written in them."""
