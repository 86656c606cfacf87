"""Rules that only spare questions: conditions and LIMIT pushed below calls, guards, early stop."""
