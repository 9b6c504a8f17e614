"""One exception tree; every message says what, where, got, expected and what to do next.

PointloomError
├── ParamsError       params.yaml or a command-line value
├── DataError         an input file, a prepared store, a data set
├── CheckpointError   weights and their description
├── BackendError      an optional library or device that is not there
└── WorkspaceError    a folder that is no workspace, is locked, or cannot be made
"""


class PointloomError(Exception):
    """Base of every error that is meant for people; the command line prints it without a stack trace."""


class ParamsError(PointloomError):
    """A parameter is unknown, missing, misspelt or out of range."""


class DataError(PointloomError):
    """An input or a prepared store is missing, empty or not what it should be."""


class CheckpointError(PointloomError):
    """Weights are missing, damaged, or do not match the model they are loaded into."""


class BackendError(PointloomError):
    """An optional dependency, device or service is missing; the message holds the command that installs it."""


class WorkspaceError(PointloomError):
    """A workspace is missing, locked by another run, or cannot be created."""
