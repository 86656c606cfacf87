"""What names mean: the relations columns belong to, the columns of `*`, names of outputs."""
