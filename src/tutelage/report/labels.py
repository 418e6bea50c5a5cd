"""Short labels for layers: what all names share is left out, and no two labels are the same."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

MAX_LENGTH = 32
LONGEST_READ = 512  # of a longer name the middle is left out before it is looked at


def short_labels(names: Sequence[str], maximum: int = MAX_LENGTH) -> list[str]:
    """Return a label for each name; long ones are shortened, and the numbers in them stay.

    The modules that all names begin with are left out, then words are cut. Where that would make
    two labels the same, they stay longer.

    >>> short_labels(["layer1.0.conv1", "layer1.1.conv1"])
    ['layer1.0.conv1', 'layer1.1.conv1']
    >>> stem = "vit.encoder.layer."
    >>> short_labels([f"{stem}{i}.attention.attention.query" for i in (0, 10)])
    ['…0.attention.attention.query', '…10.attention.attention.query']
    >>> short_labels(["encoder.layer.11.attention", "head.norm"], 15)
    ['enc.lay.11.atte', 'head.norm']

    Args:
        names: of the layers of one network.
        maximum: characters of a label, as far as labels of that length differ.
    """
    rests = [_without_middle(name, LONGEST_READ) for name in names]
    if max(map(len, names), default=0) > maximum:
        rests = _without_shared_modules(rests)
    labels = [_shortened(rest, maximum) for rest in rests]
    counts = Counter(labels)
    different = len(set(names)) == len(names)
    for i, rest in enumerate(rests):
        if counts[labels[i]] > 1 and different:
            labels[i] = rest
        # A label that would have to be very long to be the only one of its kind is numbered.
        if len(labels[i]) > 2 * maximum:
            labels[i] = f"{i + 1}: {_without_middle(rest, maximum)}"
    return labels


def _without_shared_modules(names: Sequence[str]) -> list[str]:
    """Return the names without the modules that all of them begin with, if there are several."""
    paths = [name.split(".") for name in names]
    shared = 0
    if len(names) > 1:
        while len({tuple(path[: shared + 1]) for path in paths}) == 1:
            shared += 1
            if shared == min(map(len, paths)):
                shared -= 1
                break
    return ["…" + ".".join(path[shared:]) for path in paths] if shared else list(names)


def _shortened(name: str, maximum: int) -> str:
    """Return a name whose words are cut, the longest ones first, until it is short enough."""
    words = re.split(r"([^\W\d_]+)", name)  # every second one is a run of letters
    while sum(map(len, words)) > maximum:
        longest = max(range(1, len(words), 2), key=lambda i: (len(words[i]), -i), default=0)
        if len(words[longest]) <= 2 or not longest:
            return _without_middle(name, maximum)
        words[longest] = words[longest][:-1]
    return "".join(words)


def _without_middle(text: str, maximum: int) -> str:
    """Return a text of at most so many characters.

    >>> _without_middle("runs/teachers/digits", 12)
    'runs/t…igits'
    """
    if len(text) <= maximum:
        return text
    half = maximum // 2
    return f"{text[:half]}…{text[len(text) - (maximum - half - 1) :]}"
