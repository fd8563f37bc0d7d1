"""One module a side, each with `prepare(args)`; see `benchmarks.worker`.

Each opponent is written as its own users write it. What only one environment
has is imported there alone.
"""
