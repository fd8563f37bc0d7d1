"""Several ways in one process, taking turns, and their ratios as a table."""

import time

import numpy as np


def take_turns(ways, rounds):
    """Seconds of each call: a list of `rounds` for each way, after two calls each to warm up."""
    for call in ways.values():
        call()
        call()
    seconds = {name: [] for name in ways}
    for number in range(rounds):
        for name in ways if number % 2 == 0 else reversed(ways):
            began = time.perf_counter()
            ways[name]()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def show(seconds, base, unit):
    """Print rates, and speed relative to `base` by the median over rounds, with the range.

    Args:
        seconds: for one item, an array over rounds for each way.
        base: name of the way that is 1.
        unit: of the rates.
    """
    print(f"| | {unit} | relative (range) |\n|---|---|---|")
    for name, found in seconds.items():
        ratio = np.array(seconds[base]) / np.array(found)
        spread = f"{np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f})"
        print(f"| {name} | {1 / np.median(found):,.0f} | {spread} |", flush=True)
    print()
