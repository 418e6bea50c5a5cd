"""A file with a teacher's rankings, and what it must be of to be used again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tutelage.core.teacher import Teacher
from tutelage.errors import UserError
from tutelage.io import atomic
from tutelage.methods._rankings import Blocks, Rankings
from tutelage.models.recommendation import Interactions

FORMAT = "tutelage-rankings-1"
FIX = "remove the file, or name another in the method's cache"
TOLERANCE = 1e-2  # of the largest score; TF32 differs by 1e-3
# What must agree, each with what a difference means.
REASONS = {
    "ids": "it is of other users or items, or of the same in another order",
    "interactions": "its users have other items in training, as with another split",
    "settings": "it was made with other settings of the method",
    "teacher": "it was made with another teacher, or with other weights of it",
}


@dataclass(frozen=True)
class RankingFile:
    """A file that rankings are kept in.

    Attributes:
        path: of the file.
        rankings: what it holds, or will hold.
        facts: what the rankings are of.
    """

    path: Path
    rankings: Rankings
    facts: Mapping[str, str]

    @property
    def is_written(self) -> bool:
        """Whether the file is there."""
        return self.path.exists()

    def check_scores(self, blocks: Blocks) -> None:
        """Refuse the file if the teacher now gives other scores, for the first block of users.

        The digest is of the tensors of the teacher: it does not see a score function, nor how many
        layers a LightGCN has. Another device may change the last digits.

        Args:
            blocks: users and the teacher's scores, see `teacher_scores`.

        Raises:
            UserError: If they differ.
        """
        with closing(blocks):  # it holds a state of autograd while it waits
            users, scores = next(blocks)
        items = self.rankings.items[users].flatten(1).long()
        kept = self.rankings.scores[users].flatten(1)
        differences = (scores.gather(1, items.clamp(min=0)) - kept).abs()[items >= 0]
        if len(differences) and differences.max() > TOLERANCE * scores.abs().max():
            raise UserError(f"{self.path} does not fit this run: {REASONS['teacher']}; {FIX}")

    def write(self) -> None:
        """Write the file, atomically."""
        tensors = {
            "items": self.rankings.items,
            "scores": self.rankings.scores,
            "lengths": self.rankings.lengths,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(self.path) as temporary:
            save_file(tensors, temporary, metadata=dict(self.facts))


def ranking_file(
    path: str,
    interactions: Interactions,
    settings: str,
    teacher: Teacher,
    make: Callable[[], Rankings],
) -> RankingFile:
    """Return the rankings of a file; where there is none yet, make them, but do not write it.

    Args:
        path: a .safetensors file.
        interactions: of the training data.
        settings: of the method that the rankings depend on, as text.
        teacher: whose rankings they are; without a network the file must be there.
        make: makes the rankings.

    Raises:
        UserError: If the file is damaged or is of other ids, interactions, settings or weights.
    """
    file = Path(path).expanduser()
    wanted = {
        "format": FORMAT,
        "ids": interactions.ids_digest(),
        "interactions": interactions.digest(),
        "settings": settings,
        "teacher": _teacher_digest(teacher),
    }
    rankings = _read(file, wanted, interactions.num_items) if file.exists() else make()
    return RankingFile(file, rankings, wanted)


def _read(file: Path, wanted: Mapping[str, str], num_items: int) -> Rankings:
    if file.is_dir():
        raise UserError(f"{file} is a folder; the method's cache is a file .safetensors")
    try:
        with safe_open(file, framework="pt") as stream:
            found = stream.metadata() or {}
            tensors: dict[str, Tensor] = {
                name: stream.get_tensor(name) for name in ("items", "scores", "lengths")
            }
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} holds no rankings of a teacher ({error}); {FIX}") from error
    if found.get("format") != FORMAT:
        raise UserError(f"{file} holds no rankings of a teacher that this version wrote; {FIX}")
    for name, meaning in REASONS.items():
        # Without a network there is nothing to compare with.
        if found[name] != wanted[name] and not (name == "teacher" and not wanted[name]):
            raise UserError(f"{file} does not fit this run: {meaning}; {FIX}")
    rankings = Rankings(tensors["items"], tensors["scores"], tensors["lengths"])
    if not _is_sound(rankings, num_items):
        raise UserError(f"{file} is damaged, its rankings name no items of the data; {FIX}")
    return rankings


def _is_sound(rankings: Rankings, num_items: int) -> bool:
    """Return whether all ranked items exist, with a finite score and in number as stated."""
    items, scores, lengths = rankings.items, rankings.scores, rankings.lengths
    fits = items.shape == scores.shape and items.shape[:-1] == lengths.shape
    return (
        fits
        and bool(((items >= -1) & (items < num_items)).all())
        and bool(scores.isfinite().all())
        and bool(((items >= 0).sum(-1) == lengths).all())
    )


def _teacher_digest(teacher: Teacher) -> str:
    """Return a digest of the teacher's tensors, also of those that it does not save."""
    models = teacher.models()
    if not models:
        return ""
    digest = hashlib.sha256()
    for name, model in models.items():
        named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        digest.update(f"{name} {type(model).__name__}".encode())
        for key, tensor in sorted(named.items()):
            values = tensor.detach().cpu().contiguous().view(-1)
            digest.update(key.encode() + values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
