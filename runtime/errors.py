"""One tree of errors.

Every message is one line that says what happened, with which file, and what to do about it. The command prints that
line and exits with `exit_code`. That is 2 if what was typed is wrong in itself (an unknown name, a value out of range,
options that do not go together) or the place to write to is taken, and 1 if it is what was found: a file that is
missing, unreadable or damaged, an engine that fails, a gate that is missed.
"""

from collections.abc import Callable, Mapping

Spell = Callable[[str, object], str]

# What is shown of another library's message.
MOST_CHARACTERS = 400


def in_python(name: str, value: object) -> str:
    """An argument as it is typed in Python."""
    return f"{name}={value}"


def name_arguments(message: str, arguments: Mapping[str, object], spell: Spell) -> str:
    """A message in which `{name}` stands for an argument, with each one as `spell` writes its name and value."""
    for name, value in arguments.items():
        message = message.replace(f"{{{name}}}", spell(name, value))
    return message


def brief(error: BaseException) -> str:
    """Another library's error on one line of bounded length, without control characters; its type if it says nothing.

    Both ends are kept, since libraries begin with the file of theirs where it happened, or end with a trace.
    """
    line = " ".join(str(error).split()) or type(error).__name__
    line = "".join(each if each.isprintable() else repr(each)[1:-1] for each in line)
    if len(line) > MOST_CHARACTERS:
        line = f"{line[: MOST_CHARACTERS // 2]} … {line[-MOST_CHARACTERS // 2 :]}"
    return line


class ByolEdgeError(Exception):
    """Base of every error that this package raises on purpose.

    A message names an argument in braces, its value beside it:

        raise UsageError("{batch_size} is more than there are images", batch_size=64)

    In Python that reads "batch_size=64 is more than …"; the command spells it as the flag that was typed. Other braces
    are left alone. `arguments` are the named ones, the one at fault first.
    """

    exit_code = 1

    def __init__(self, message: str = "", **arguments: object) -> None:
        self.message = message
        self.arguments = arguments
        super().__init__(self.describe(in_python))

    def describe(self, spell: Spell) -> str:
        """The message with each argument as `spell` writes its name and value."""
        return name_arguments(self.message, self.arguments, spell)


class UsageError(ByolEdgeError):
    """An argument that cannot be used: an unknown backbone, a batch of one, two that do not go together."""

    exit_code = 2


class OutputExistsError(UsageError):
    """The place to write to is taken."""


class ImageError(ByolEdgeError):
    """An image, a folder of them, or a file of their classes, that is missing or cannot be read."""


class RunError(ByolEdgeError):
    """A run, a checkpoint or a file of settings that is missing or damaged, or a training that cannot go on."""


class BundleError(ByolEdgeError):
    """A bundle or model file that is missing, changed or of another format."""


class VectorError(ByolEdgeError):
    """Vectors that do not mix with an encoder's: of another model, of an engine that rounds differently, or of an
    unknown encoder."""


class EngineError(ByolEdgeError):
    """An engine that is not installed, or that failed."""


class FidelityError(ByolEdgeError):
    """A variant is further from PyTorch than its gate allows."""
