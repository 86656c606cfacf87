"""Cascades of others: a cheap model answers, its confidence says whether the reference is asked.

These are the systems that `certified` is compared with in `smartsql replay`, each as published as
far as the setting allows: agreement with the reference takes the place of accuracy, and every call
is charged, those that teach a threshold or a router included. What they share:

* a tier (`tiers`) is a cheap model with the call that judges its answers;
* what is learned is learned from the first rows of the order (`sample`), which keep the
  reference's answers. Where a table is read in its stored order, so are these rows;
* with several candidates the one that looks cheapest on a small part of these rows is taken.

Only `bargain` proves anything. `threshold`, `data-shunt` and the three forms of AutoMix take what
they saw on the labelled rows for the truth, which is what their absence of a guarantee means.
"""
