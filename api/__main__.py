"""`python -m byol_edge`, and the command `byol-edge`."""

import signal
import sys


def main() -> None:
    """Runs the command; on Windows, says in one line that it cannot."""
    # Until the command's work begins, Ctrl-C ends the process and nothing is printed. Some shells let it be ignored.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "win32":
        sys.exit("byol-edge: needs Linux or macOS")
    from .cli.main import main as run

    run()


if __name__ == "__main__":
    main()
