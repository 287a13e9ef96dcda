"""One tree of errors.

Every message is one line that says what happened, with which file, and what to do about it. The command prints that
line and leaves with `exit_code`.
"""


class ByolEdgeError(Exception):
    """Base of every error that this package raises on purpose."""

    exit_code = 1


class UsageError(ByolEdgeError):
    """An argument that cannot be used: an unknown backbone, a batch of one, a variant that does not exist."""

    exit_code = 2


class OutputExistsError(UsageError):
    """The place to write to is taken."""


class ImageError(ByolEdgeError):
    """An image, or a folder of them, that cannot be read."""


class RunError(ByolEdgeError):
    """A run that is missing, unfinished or damaged, or a training that cannot go on."""


class BundleError(ByolEdgeError):
    """A bundle or model file that is missing, changed or of another format."""


class EngineError(ByolEdgeError):
    """An engine that is not installed, or that failed."""


class FidelityError(ByolEdgeError):
    """A variant is further from PyTorch than its gate allows."""
