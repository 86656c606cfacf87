"""Macros and views that lead to a smart call, written out where a statement names them."""
