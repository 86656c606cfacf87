"""Statements that change rows: INSERT, UPDATE, DELETE and MERGE, over a query to be planned."""
