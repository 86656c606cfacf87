"""Answers with a type: what a structure allows, how values are read, and when they agree.

`structures` reads the structure that a caller writes, `values` reads what a model wrote by that
structure, `schemas` says the same to endpoints that can hold a model to it.
"""
