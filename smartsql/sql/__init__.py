"""How a call lives inside a DuckDB plan: normaliser, barrier, session.

A language model must not be asked row by row while a plan runs: what may be answered cheaply is
known only when all rows of a call are known. So `smart_llm` is a macro around a window function,
the barrier (`barrier`, `sets`, `prompts`): rows are collected below the window, the engine
answers the complete set, and the rows above it look their answers up. `macros` puts it on a
connection. Calls in places where a window is illegal are moved by the `normalise` package; a
`session` is a DuckDB connection that does so for every statement. What the layer needs from the
engine is in `protocol`.
"""
