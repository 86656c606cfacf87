"""Statements as texts: their words and parameters, and what stands around the query in them."""
