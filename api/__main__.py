"""`python -m byol_edge`, and the command `byol-edge`."""

import signal
import sys


def main() -> None:
    """Runs the command; on a system without file locks, says so in one line."""
    # Until the command's work begins, Ctrl-C ends the process and nothing is printed. Some shells let it be ignored.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        import fcntl  # noqa: F401
    except ImportError:
        sys.exit("byol-edge: needs Linux, or another system with file locks (fcntl)")
    from .cli.main import main as run

    run()


if __name__ == "__main__":
    main()
