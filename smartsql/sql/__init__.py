"""How a call lives inside a DuckDB plan: normaliser, barrier, session."""
