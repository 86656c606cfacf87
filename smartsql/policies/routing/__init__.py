"""Which rows go where, under the promise: evidence, plan, and the loop that proves it."""
