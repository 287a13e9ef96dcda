"""Three numbers as they are typed, of red, green and blue."""

from __future__ import annotations

import click


def read_channels(_: click.Context, __: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    """ "0.5,0.4,0.3" as three numbers, of red, green and blue; one number stands for all three."""
    try:
        numbers = tuple(float(each) for each in text.split(",")) if text is not None else None
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a number, or three with commas between them") from None
    return numbers * 3 if numbers is not None and len(numbers) == 1 else numbers
