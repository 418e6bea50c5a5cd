"""The student of EmbedDistill: projection, inherited documents, and vectors that are ready."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import nn

from tutelage.core.collection import Collection
from tutelage.core.teacher import Teacher
from tutelage.models.text import DualEncoder, InheritedDocuments, ProjectedEncoder, Role
from tutelage.models.text.projected import document_tower

SAMPLE = 2000  # training queries for the least-squares start


@runtime_checkable
class HasCollections(Protocol):
    """Samples that know which texts they draw from."""

    def collections(self) -> Sequence[tuple[Collection, Role]]:
        """Return all collections, with what each is for an encoder."""
        ...


def embed_distill_student(
    student: nn.Module, teacher: Teacher, inherit_documents: bool
) -> nn.Module:
    """Return the student to train.

    Args:
        student: a `DualEncoder`; any other network stays as it is.
        teacher: of the recipe.
        inherit_documents: put the teacher's document tower into the student.

    Raises:
        UserError: If documents cannot be inherited from such a teacher.
    """
    if not isinstance(student, DualEncoder):
        return student
    models = list(teacher.models().values())
    model = models[0] if len(models) == 1 else None
    if isinstance(model, DualEncoder) and _differ(student, model):
        student = ProjectedEncoder(student, model.dim, model.normalized)
    if not inherit_documents:
        return student
    document_tower(teacher)
    return InheritedDocuments(student, teacher)


def prepare(data: Any, teacher: Teacher) -> None:
    """Let a teacher with a cache encode all texts that training draws from.

    Args:
        data: samples with `collections`, as `tutelage.data.QuerySamples`; others need nothing.
        teacher: of the recipe.
    """
    if isinstance(data, HasCollections):
        for encoder in _encoders(teacher):
            encoder.prepare(data.collections())


def use_stored(data: Any, teacher: Teacher) -> None:
    """Let a teacher with a cache take the vectors that earlier runs have stored.

    Args:
        data: as `prepare`.
        teacher: of the recipe.
    """
    if isinstance(data, HasCollections):
        for encoder in _encoders(teacher):
            encoder.use_stored(data.collections())


def _encoders(teacher: Teacher) -> list[DualEncoder]:
    return [model for model in teacher.models().values() if isinstance(model, DualEncoder)]


def fit_projection(student: nn.Module, data: Any, teacher: Teacher) -> None:
    """Start the projection of a student at the least-squares solution over training queries."""
    tower = student.query if isinstance(student, InheritedDocuments) else student
    if not isinstance(tower, ProjectedEncoder):
        return
    queries = data.queries
    step = max(1, len(queries) // SAMPLE)
    items = queries.take(range(0, len(queries), step))
    tower.fit(items, document_tower(teacher).encode(items, "query"))


def _differ(student: DualEncoder, teacher: DualEncoder) -> bool:
    return student.dim != teacher.dim or student.normalized != teacher.normalized
