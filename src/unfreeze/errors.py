"""Errors for users: each message tells what is wrong, where, and what to do.

The command line prints these without a traceback and exits with 2; anything
else that is raised is a defect of this package.
"""


class UnfreezeError(Exception):
    """Base of all errors that a user can mend."""


class Stopped(KeyboardInterrupt):
    """A run that ended early because it was asked to; what it had earned is kept."""


class ScheduleError(UnfreezeError, ValueError):
    """A schedule that cannot be run as it is written."""


class StageError(UnfreezeError, RuntimeError):
    """A stage that did not do what it claims: see the audit in the message."""


class DataError(UnfreezeError, ValueError):
    """Recordings, manifests or arrays that cannot be used."""


class WeightsError(UnfreezeError, RuntimeError):
    """Pretrained weights that cannot be found, fetched or verified."""


class RunError(UnfreezeError, RuntimeError):
    """A run folder that is missing, foreign, damaged or in use."""


class ExportError(UnfreezeError, RuntimeError):
    """An export that cannot be made, or that does not agree with its model."""
