"""What somebody meant who wrote the name of a setting that there is not."""

from __future__ import annotations

import difflib
from collections.abc import Collection


def suggest(name: str, known: Collection[str]) -> str:
    """ "did you mean learning_rate?" for "lerning_rate" and for "lr"; else what there is."""
    by_initials = [each for each in known if "".join(word[:1] for word in each.split("_")) == name]
    near = difflib.get_close_matches(name, known, n=1) or by_initials
    if near:
        return f"did you mean {near[0]}?"
    return f"there are {', '.join(known)}" if known else "it has none"
