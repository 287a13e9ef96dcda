"""`python -m byol_edge`, and the command `byol-edge`."""

import sys


def main() -> None:
    """Runs the command; on a system without file locks, says so in one line."""
    try:
        import fcntl  # noqa: F401
    except ImportError:
        sys.exit("byol-edge: needs Linux, or another system with file locks (fcntl)")
    from .cli.main import main as run

    run()


if __name__ == "__main__":
    main()
