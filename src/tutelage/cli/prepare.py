"""`tutelage prepare`: data sets made of what packages and archives hold."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import UserError, near_misses

OPTIONS = ("source", "size", "stride", "seed")


@dataclass(frozen=True)
class Source:
    """Something that a data set can be made of.

    Attributes:
        make: makes it in a folder, from the options that were given.
        takes: names of the options that it knows.
        needs: names of those it cannot do without.
    """

    make: Callable[[Path, Mapping[str, Any]], Path]
    takes: tuple[str, ...]
    needs: tuple[str, ...] = ()


def run(arguments: argparse.Namespace) -> int:
    """Make the folder and say where it is.

    Raises:
        UserError: there is no such source, an option does not go with it, or the folder is there already.
    """
    what, out = arguments.what, Path(arguments.out)
    if what not in SOURCES:
        raise UserError(f"there is nothing to prepare called {what!r}{near_misses(what, SOURCES)}")
    source = SOURCES[what]
    given = {name: vars(arguments)[name] for name in OPTIONS if vars(arguments)[name] is not None}
    for name in given:
        if name not in source.takes:
            raise UserError(f"{what} does not take --{name}; it takes {', '.join('--' + n for n in source.takes)}")
    for name in source.needs:
        if name not in given:
            raise UserError(f"{what} needs --{name}; see tutelage prepare --help")
    if out.exists():
        raise UserError(f"{out} is there already; remove it, or choose another --out")
    print(source.make(out, given))
    return 0


def _deepforest(out: Path, options: Mapping[str, Any]) -> Path:
    from tutelage.data.prepare.deepforest import prepare_deepforest

    return prepare_deepforest(out, **options)


def _mni152(out: Path, options: Mapping[str, Any]) -> Path:
    from tutelage.data.prepare.mni152 import prepare_mni152

    return prepare_mni152(out, **options)


def _tuxpaint(out: Path, options: Mapping[str, Any]) -> Path:
    from tutelage.data.prepare.tuxpaint import prepare_tuxpaint

    return prepare_tuxpaint(out, **options)


def _voc(out: Path, options: Mapping[str, Any]) -> Path:
    from tutelage.data.prepare.voc import prepare_voc

    return prepare_voc(out, options["source"])


SOURCES = {
    "deepforest": Source(_deepforest, ("size", "stride")),
    "mni152": Source(_mni152, ("seed",)),
    "tuxpaint": Source(_tuxpaint, ("size", "seed")),
    "voc": Source(_voc, ("source",), ("source",)),
}
