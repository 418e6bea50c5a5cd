"""`tutelage prepare`: make data sets of what packages and archives hold."""

from __future__ import annotations

import argparse
from pathlib import Path

from tutelage.cli._parser import Commands, Parser, add_command
from tutelage.errors import UserError

EXAMPLES = """
tutelage prepare deepforest --out data/deepforest --size 256 --stride 128
tutelage prepare voc --source VOCdevkit/VOC2012 --out data/voc
tutelage prepare mni152 --out data/mni152 --seed 1
"""


def register(commands: Commands) -> None:
    """Add the command, with one command below it for each source."""
    command = add_command(
        commands,
        "prepare",
        "make a data set of what a package or an archive holds",
        examples=EXAMPLES,
    )
    command.set_defaults(run=_run_nothing)
    sources = command.add_subparsers(dest="source", metavar="SOURCE")

    deepforest = _add(sources, "deepforest", "tree crowns in aerial images, with boxes")
    deepforest.add_argument("--size", type=int, default=256, help="side of a tile (default 256)")
    deepforest.add_argument(
        "--stride", type=int, default=128, help="between the training tiles' corners (default 128)"
    )
    deepforest.set_defaults(run=run_deepforest)

    mni152 = _add(sources, "mni152", "slices of a brain template, with masks")
    mni152.add_argument("--seed", type=int, default=0, help="of the noise (default 0)")
    mni152.set_defaults(run=run_mni152)

    tuxpaint = _add(sources, "tuxpaint", "stamps pasted on photographs, with masks")
    tuxpaint.add_argument("--size", type=int, default=96, help="side of an image (default 96)")
    tuxpaint.add_argument(
        "--seed", type=int, default=0, help="of the parts and the composition (default 0)"
    )
    tuxpaint.set_defaults(run=run_tuxpaint)

    voc = _add(sources, "voc", "a folder in VOC's layout with boxes in XML, as COCO")
    voc.add_argument("--source", dest="folder", required=True, help="VOC folder to read")
    voc.add_argument(
        "--parts",
        help="lists in ImageSets/Main, such as train,val (default: of train, val and test those "
        "that are there)",
    )
    voc.set_defaults(run=run_voc)


def _add(sources: Commands, name: str, summary: str) -> Parser:
    parser = add_command(
        sources, name, summary, examples=f"tutelage prepare {name} --out data/{name}"
    )
    parser.add_argument("--out", required=True, help="folder to make, whole or not at all")
    return parser


def _run_nothing(arguments: argparse.Namespace, overrides: list[str]) -> int:
    raise UserError("prepare needs a SOURCE; see tutelage prepare --help")


def run_deepforest(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Make the tiles of DeepForest."""
    from tutelage.data.sets.deepforest import prepare_deepforest

    out = _new_folder(arguments.out)
    print(prepare_deepforest(out, size=arguments.size, stride=arguments.stride))
    return 0


def run_mni152(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Make the slices of MNI152."""
    from tutelage.data.sets.mni152 import prepare_mni152

    print(prepare_mni152(_new_folder(arguments.out), seed=arguments.seed))
    return 0


def run_tuxpaint(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Make the compositions of Tux Paint's stamps."""
    from tutelage.data.sets.tuxpaint import prepare_tuxpaint

    out = _new_folder(arguments.out)
    print(prepare_tuxpaint(out, size=arguments.size, seed=arguments.seed))
    return 0


def run_voc(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Convert a VOC folder."""
    from tutelage.data.sets.voc_boxes import prepare_voc

    parts = arguments.parts
    names = None if parts is None else [name.strip() for name in parts.split(",")]
    print(prepare_voc(_new_folder(arguments.out), arguments.folder, names))
    return 0


def _new_folder(out: str) -> Path:
    folder = Path(out)
    if folder.exists():
        raise UserError(f"{folder} is there already; remove it, or choose another --out")
    return folder
