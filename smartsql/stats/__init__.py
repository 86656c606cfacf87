"""Exact statistics of audits without replacement. Pure: numbers in, numbers out."""
