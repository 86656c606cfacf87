"""Rules that move calls to where DuckDB can run them: mostly into a query of their own."""
