"""What a query tells before it runs: pure conditions, what they imply, the rows that it wants."""
