"""`unfreeze`, with a checkpoint after each epoch.

    python -m benchmarks.sides.every_epoch train ...

Checkpoints are written as seldom as 3 % of the time ask for. What is in them must
be right after any epoch, so `benchmarks.kills` takes that limit away.
"""


def main():
    from unfreeze.backend import import_keras

    import_keras()
    from unfreeze.cli import main as unfreeze
    from unfreeze.core.run_state import Checkpointer

    Checkpointer._is_time = lambda self: True
    unfreeze()


if __name__ == "__main__":
    main()
