"""EmbedDistill: a student's query encoder learns embeddings and scores of a dual encoder.

Source: S. Kim, A. S. Rawat, M. Zaheer, S. Jayasumana, V. Sadhanala, W. Jitkrittum, A. K. Menon,
R. Fergus, S. Kumar, "EmbedDistill: A Geometric Knowledge Distillation for Information Retrieval",
arXiv 2301.12005, equations 7 to 11. There is no official code; symbols and weights are from
published summaries of version 2.

    L = L_1hot + λ_sc L_sc + λ_emb R_Q [+ λ_emb R_D] [+ λ_gen R_Q of generated queries]
    R_Q = (1/B) Σ_i ‖ P(z_i) - q_i ‖₂

with L_1hot the supervised loss of `tutelage.tasks.Retrieval`. P is a linear layer of the student
where its width differs from the teacher's. Symbols → arguments: λ_sc `score_weight`, λ_emb
`embed_weight`, λ_gen `generated_weight`, factor of L_1hot `task_weight`, τ_s and τ_t
`student_temperature` and `teacher_temperature`. R_D acts where the student has a document tower of
its own, `inherit_documents=False`.

The rows of the paper's tables are settings of this method: "+ score" has `inherit_documents=False`
and `embed_weight=0`, "+ inherited documents" `embed_weight=0`, "+ query matching" the defaults, "+
generated queries" `shares`.

Differs from the paper:
- The paper's temperatures are not known to us; 0.05 suits vectors of length 1, 1.0 raw products.
- The distillation of scores is trained as KL, which is 0 at the optimum; `form` has the others.
- Documents that are the same as a query's own are no candidates of it.

Cost: B · N · d for scores; with inherited documents and cached vectors of the teacher, no document
is encoded at all.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tutelage.core.frozen import Unregistered
from tutelage.core.in_batch import in_batch_candidates
from tutelage.core.method import Method, MethodInfo
from tutelage.core.output import Step
from tutelage.core.search_space import Around
from tutelage.core.teacher import Teacher
from tutelage.errors import UserError
from tutelage.methods._checks import check_choice, check_positive, check_weights
from tutelage.methods._unlabeled import checked_shares
from tutelage.methods.embed_distill.losses import (
    Metric,
    embed_matching_loss,
    margin_mse_loss,
    score_distillation_loss,
)
from tutelage.methods.embed_distill.outputs import Vectors
from tutelage.methods.embed_distill.student import (
    embed_distill_student,
    fit_projection,
    prepare,
    use_stored,
)

Form = Literal["kl", "ce", "margin_mse"]


class EmbedDistill(Method):
    """EmbedDistill; terms `embed_distill/score`, `/query`, `/document` and `/generated`.

    Networks whose output is a tensor have query vectors only: match these alone, with
    `score_weight=0`.

    >>> method = EmbedDistill(score_weight=0.0)
    >>> method.embed_weight, method.metric, method.inherit_documents
    (1.0, 'l2', True)

    Args:
        embed_weight: λ_emb; 0 turns the matching off.
        score_weight: λ_sc; 0 turns the distillation of scores off.
        generated_weight: λ_gen; None takes λ_emb.
        task_weight: factor of the supervised loss; 0 trains without judgments.
        inherit_documents: the student takes over the teacher's document tower, frozen.
        metric: distance of vectors.
        form: of the distillation of scores.
        student_temperature: τ_s.
        teacher_temperature: τ_t.
        t_squared: multiply the distillation of scores by τ_s².
        projection: how the layer to the teacher's width starts: at random, or at the least-squares
            solution over training queries.
        shares: pool of generated queries → how many of them join a batch per training query; such
            as `{"generated": 1.0}`.

    Raises:
        UserError: If a weight, a temperature or a choice is out of range.
    """

    info = MethodInfo(
        paper="S. Kim et al., EmbedDistill: A Geometric Knowledge Distillation for Information "
        "Retrieval, 2023, arXiv 2301.12005",
        tasks="retrieval",
        needs="vectors of queries and documents from both networks; the teacher may be cached",
        trains="a projection to the teacher's width, which is shipped with the student",
    )
    search_space = (
        Around("embed_weight", 10.0),
        Around("score_weight", 10.0),
        Around("generated_weight", 10.0),
        Around("student_temperature", 4.0),
        Around("teacher_temperature", 4.0),
    )

    def __init__(
        self,
        *,
        embed_weight: float = 1.0,
        score_weight: float = 1.0,
        generated_weight: float | None = None,
        task_weight: float = 1.0,
        inherit_documents: bool = True,
        metric: Metric = "l2",
        form: Form = "kl",
        student_temperature: float = 0.05,
        teacher_temperature: float = 0.05,
        t_squared: bool = False,
        projection: Literal["random", "lstsq"] = "random",
        shares: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        check_weights("EmbedDistill", embed_weight, score_weight, task_weight)
        check_weights("EmbedDistill", generated_weight, optional=True)
        check_choice("metric", metric, Metric)
        check_choice("form", form, Form)
        check_choice("projection", projection, Literal["random", "lstsq"])
        check_positive("student_temperature of EmbedDistill", student_temperature)
        check_positive("teacher_temperature of EmbedDistill", teacher_temperature)
        self.embed_weight = embed_weight
        self.score_weight = score_weight
        self.generated_weight = generated_weight
        self.task_weight = task_weight
        self.inherit_documents = inherit_documents
        self.metric = metric
        self.form = form
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.t_squared = t_squared
        self.projection = projection
        self.shares = {} if shares is None else checked_shares("EmbedDistill", shares)
        self._student: Unregistered[nn.Module] | None = None
        self._data: Any = None
        self._teacher: Teacher | None = None

    def build_student(self, student: nn.Module, teacher: Teacher) -> nn.Module:
        """Return the student with its projection and, if it inherits them, the documents."""
        built = embed_distill_student(student, teacher, self.inherit_documents)
        self._student = Unregistered(built)
        return built

    def build_data(self, train: Any, teacher: Teacher) -> Any:
        """Return the training data with generated queries."""
        self._data = train.with_streams(self.shares) if self.shares else train
        return self._data

    def setup(self, example: Step, teacher: Teacher) -> None:
        """Check widths, and start the projection; vectors of earlier runs are used."""
        self._check(example)
        if self._data is not None:
            use_stored(self._data, teacher)
            if self.projection == "lstsq" and self._student is not None:
                fit_projection(self._student.module, self._data, teacher)
            self._teacher = teacher  # no module, so that it stays unregistered

    def on_train_start(self) -> None:
        """Let a teacher with a cache encode all that training draws from, which may take hours."""
        if self._data is not None and self._teacher is not None:
            prepare(self._data, self._teacher)

    def _check(self, example: Step) -> None:
        """Check widths, and warn if vectors of one side only have length 1."""
        student = Vectors.of(example.student, example.batch)
        other = Vectors.of(example.teacher, example.batch)
        if self.embed_weight and other.queries is None:
            raise UserError(
                "the teacher scores pairs and gives no vectors, so there is nothing to match; set "
                "embed_weight to 0, or give it dual pooling"
            )
        is_of_pairs = other.queries is None or other.queries.ndim != 2
        if self.shares and is_of_pairs:
            raise UserError(
                "the teacher reads queries together with documents, so that it has no vectors for "
                "generated queries; leave method.shares out"
            )
        if other.queries is None or student.queries is None:
            return
        if other.queries.ndim != 2:  # of pairs, in another space
            return
        width, wanted = student.queries.shape[1], other.queries.shape[1]
        if width != wanted and (self.embed_weight or self.inherit_documents):
            raise UserError(
                f"the vectors have different widths, student {width}, teacher {wanted}: pass a "
                "projection"
            )
        if _is_unit(student.queries) != _is_unit(other.queries):
            which = "student's" if _is_unit(student.queries) else "teacher's"
            warnings.warn(
                f"only the {which} query vectors have length 1; distances and scores then compare "
                "different spaces: normalize both or neither",
                stacklevel=2,
            )

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the terms that have a weight."""
        student = Vectors.of(step.student, step.batch)
        teacher = Vectors.of(step.teacher, step.batch)
        queries = student.labeled_queries()
        terms: dict[str, Tensor] = {}
        if self.score_weight:
            score = self._score(student, teacher, step)
            terms["embed_distill/score"] = self.score_weight * score
        if self.embed_weight:
            target = teacher.targets(len(queries))
            loss = embed_matching_loss(queries, target, metric=self.metric)
            terms["embed_distill/query"] = self.embed_weight * loss
            if student.documents is not None and not self.inherit_documents:
                target = teacher.document_targets(student.documents)
                loss = embed_matching_loss(student.documents, target, metric=self.metric)
                terms["embed_distill/document"] = self.embed_weight * loss
        weight = self.embed_weight if self.generated_weight is None else self.generated_weight
        if weight and self.shares:
            generated = student.generated_queries()
            target = teacher.generated_queries()
            loss = embed_matching_loss(generated, target, metric=self.metric)
            terms["embed_distill/generated"] = weight * loss
        return terms

    def _score(self, student: Vectors, teacher: Vectors, step: Step) -> Tensor:
        queries = student.labeled_queries()
        if not len(queries):  # generated queries alone
            return queries.sum()
        if student.documents is None:
            raise UserError(
                "EmbedDistill distills scores of documents, but the student's output has none; set "
                "score_weight to 0, or give a dual encoder such as tutelage.models.SentenceEncoder"
            )
        groups = step.batch.get("document_groups")
        if teacher.scores is not None:
            own = student.own_candidates()
            scores = torch.einsum("bd,bkd->bk", queries.float(), own.float())
            first = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
            return self._distance(scores, teacher.scores, first, None)
        if teacher.documents is None:
            raise UserError(
                "EmbedDistill distills scores of documents, but the teacher's output has none; set "
                "score_weight to 0, or give a teacher that is a dual encoder"
            )
        candidates = in_batch_candidates(len(queries), student.documents, groups)
        scores = candidates.scores(queries)
        with torch.no_grad():
            other = in_batch_candidates(len(queries), teacher.documents)
            target = other.scores(teacher.labeled_queries())
        return self._distance(scores, target, candidates.positives, candidates.mask)

    def _distance(
        self, scores: Tensor, target: Tensor, positives: Tensor, mask: Tensor | None
    ) -> Tensor:
        if self.form == "margin_mse":
            return margin_mse_loss(scores, target, positives, mask)
        return score_distillation_loss(
            scores,
            target,
            student_temperature=self.student_temperature,
            teacher_temperature=self.teacher_temperature,
            form=self.form,
            t_squared=self.t_squared,
            mask=mask,
        )


def _is_unit(vectors: Tensor) -> bool:
    lengths = vectors.float().norm(dim=1)
    return bool(((lengths - 1).abs() < 1e-2).all())
