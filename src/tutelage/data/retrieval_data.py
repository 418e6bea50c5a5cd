"""Data sets of retrieval: a corpus, judged queries, and training pairs given or generated."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core.collection import Collection, Judgments
from tutelage.data._settings import check_share
from tutelage.data.base import Data
from tutelage.data.generated_queries import (
    Documents,
    GeneratedQueries,
    Generator,
    generate_queries,
    normal_form,
)
from tutelage.data.query_samples import CorpusSamples, QuerySamples
from tutelage.data.samples import Samples
from tutelage.errors import UserError
from tutelage.models.text import DualEncoder

GENERATED = "generated"  # name of the pool of further generated queries
SPLIT_SEED = 0  # of the cut for validation, the same for every run


@dataclass(frozen=True)
class JudgedQueries:
    """Queries of one part with their judgments, by row in the corpus."""

    queries: Collection
    judgments: Judgments


@dataclass(frozen=True)
class RetrievalContents:
    """What the files of a data set hold.

    Attributes:
        corpus: the documents as encoders read them, title and text.
        documents: their titles and texts, of which queries are made.
        parts: judged queries by part; `test` must be there, `train` and `validation` may be.
        user_queries: queries that a user's own generator made, or None.
    """

    corpus: Collection
    documents: Documents
    parts: Mapping[str, JudgedQueries]
    user_queries: GeneratedQueries | None = None


class RetrievalData(Data):
    """A corpus with judged queries.

    The training part is that of the files or, if they have none, queries generated from the corpus.
    The validation part is that of the files; else a share of the judged test queries, which are
    then not tested on (`judged_validation`); else a share of the training queries. Generated
    validation queries are nearly lexical and can prefer a model that human judgments do not; then
    ship the last epoch (`train.checkpoint: last`) rather than the best one.

    Attributes:
        pairs: generators of the training queries, for data without training queries.
        generated: generators of the further queries of the pool `generated`, which have no
            judgments and join the batches of a method that asks for them.
        validation: share of the training queries that is held out, where there is no other
            validation part; if there is, it is not used.
        judged_validation: share of the judged queries that is held out from testing; an error if
            the files have a validation part.
        documents_per_query: documents of a training query in a batch, of which one is relevant; 0
            is for matching query vectors alone, which reads no documents.
        generator_seed: of random sentences.
    """

    pairs: Sequence[Generator] = ("title", "first_sentence", "random_sentence")
    generated: Sequence[Generator] = ("tfidf", "random_sentence", "random_sentence")
    validation: float = 0.05
    judged_validation: float = 0.0
    documents_per_query: int = 1
    generator_seed: int = 0
    _contents: RetrievalContents | None = None

    @abstractmethod
    def read(self) -> RetrievalContents:
        """Return what the files hold."""

    def contents(self) -> RetrievalContents:
        """Return what the files hold; they are read once."""
        if self._contents is None:
            self._contents = self.read()
        return self._contents

    def splits(self, num_labels: int | None = None, seed: int = 0) -> Mapping[str, Samples]:
        """Return the parts `train`, `validation` and `test`, and `corpus`.

        Args:
            num_labels: number of training queries; None takes all.
            seed: the run's seed; it draws the subset, and one of several relevant documents.

        Raises:
            UserError: If a part is empty, a share is out of range or cannot be held out, the
                documents of a query are fewer than 0, or the training queries than asked for.
        """
        if self.documents_per_query < 0:
            raise UserError(
                "data.documents_per_query is a whole number from 0 on, got "
                f"{self.documents_per_query}"
            )
        contents = self.contents()
        test = contents.parts["test"]
        train = contents.parts.get("train")
        pools = self._pools()
        if train is None:
            made = self._training_queries()
            train = JudgedQueries(made.queries, made.judgments)
        validation = contents.parts.get("validation")
        self._check_shares(has_validation=validation is not None)
        given = [test] if validation is None else [validation, test]
        rows = trainable(train, [part.queries for part in given])
        test_rows = torch.arange(len(test.queries))
        if validation is not None:
            _warn_shared(validation.queries, test.queries)
            held_out = torch.arange(len(validation.queries))
        elif self.judged_validation:
            validation = test
            test_rows, held_out = _cut(test_rows, self.judged_validation)
        else:
            validation = train
            rows, held_out = _cut(rows, self.validation)
        if not len(rows):
            raise UserError(
                f"no training query is left beside {len(held_out)} for validation; lower "
                "data.validation, or give more training queries"
            )
        if num_labels is not None:
            rows = _drawn(rows, num_labels, seed)
        samples = QuerySamples(
            contents.corpus,
            train.queries,
            train.judgments,
            rows=rows,
            pools=pools,
            documents_per_query=self.documents_per_query,
            with_documents=self.documents_per_query > 0,
            seed=seed,
        )
        return {
            "train": samples,
            "validation": _judged(contents.corpus, validation, held_out),
            "test": _judged(contents.corpus, test, test_rows),
            "corpus": CorpusSamples(contents.corpus),
        }

    def normalize(
        self,
        network: nn.Module,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> nn.Module:
        """Return the network with the vocabulary that the training texts need.

        Raises:
            UserError: If the recipe has statistics of pixels.
        """
        super().normalize(network, mean, std)
        if isinstance(network, DualEncoder):
            texts = self._training_texts()
            if texts:
                network.adapt(texts)
        return network

    def input_info(self, network: nn.Module) -> dict[str, Any]:
        """Return what enters the network, and the corpus that it was made for."""
        corpus = self.contents().corpus
        inputs = "vectors" if isinstance(corpus.items, Tensor) else "texts"
        return {"inputs": inputs, "documents": len(corpus), "corpus": corpus.digest}

    def _check_shares(self, has_validation: bool) -> None:
        """Raise if a share is out of range or cannot be held out, warn if it is not used."""
        is_other = has_validation or self.judged_validation > 0
        check_share("data.validation", self.validation, zero=is_other)
        check_share("data.judged_validation", self.judged_validation, zero=True)
        if has_validation and self.judged_validation:
            raise UserError(
                f"data.judged_validation is {self.judged_validation}, but the data has validation "
                "queries of its own; leave it out"
            )
        if is_other and self.validation != RetrievalData.validation:
            reason = "there are other validation queries, of the files or judged ones"
            warnings.warn(f"data.validation {self.validation} is not used: {reason}", stacklevel=3)

    def _training_queries(self) -> GeneratedQueries:
        return self._generate(self.pairs, "train", self.generator_seed)

    def _pools(self) -> dict[str, Collection]:
        """Return the pools of further queries, those of the user among them."""
        contents = self.contents()
        pools: dict[str, Collection] = {}
        if self.generated and len(contents.documents.ids):
            # Random sentences of another seed than the training queries'.
            made = self._generate(self.generated, GENERATED, self.generator_seed + 100)
            pools[GENERATED] = made.queries
        if contents.user_queries is not None:
            pools["user"] = contents.user_queries.queries
        return pools

    def _generate(self, generators: Sequence[Generator], name: str, seed: int) -> GeneratedQueries:
        contents = self.contents()
        excluded: list[Any] = []
        for part in ("validation", "test"):
            if part in contents.parts:
                excluded.extend(contents.parts[part].queries.items)
        return generate_queries(
            contents.documents, generators, name=name, seed=seed, excluded=excluded
        )

    def _training_texts(self) -> list[str]:
        """Return all texts that training reads: documents, queries, generated queries."""
        contents = self.contents()
        if isinstance(contents.corpus.items, Tensor):
            return []
        train = contents.parts.get("train")
        queries = self._training_queries().queries if train is None else train.queries
        collections = [contents.corpus, queries, *self._pools().values()]
        return [str(text) for collection in collections for text in collection.items]


def trainable(part: JudgedQueries, held_out: Sequence[Collection] = ()) -> Tensor:
    """Return the rows of the queries to train on; warn of those that are left out.

    These are queries without a relevant document, and queries that are equal to one of validation
    or test, but for case and punctuation.

    Args:
        part: all training queries.
        held_out: queries of validation and test.
    """
    has_relevant = torch.zeros(len(part.queries), dtype=torch.bool)
    has_relevant[part.judgments.queries[part.judgments.grades > 0]] = True
    is_known = torch.tensor(_are_in(part.queries, held_out))
    total = len(part.queries)
    for mask, what in (
        (~has_relevant, "have no relevant document"),
        (is_known, "are also queries of validation or test"),
    ):
        count = int(mask.sum())
        if count:
            message = f"{count} of {total} training queries {what} and are left out"
            warnings.warn(message, stacklevel=2)
    return (has_relevant & ~is_known).nonzero().flatten()


def _warn_shared(validation: Collection, test: Collection) -> None:
    """Warn of validation queries that are tested on, as where dev.tsv is a copy of test.tsv."""
    count = sum(_are_in(validation, [test]))
    if count:
        warnings.warn(
            f"{count} of {len(validation)} validation queries are also queries of test, so that "
            "epochs and settings are chosen on what is reported; give other queries for one of "
            "them",
            stacklevel=3,
        )


def _are_in(queries: Collection, others: Sequence[Collection]) -> list[bool]:
    """Return which queries are equal to one of others, but for case and punctuation."""
    known = {_comparable(item) for other in others for item in other.items}
    return [_comparable(item) in known for item in queries.items]


def _comparable(item: str | Tensor) -> object:
    """Return what is equal for equal queries: the words of a text, or the numbers of a vector."""
    return normal_form(item) if isinstance(item, str) else tuple(item.tolist())


def _judged(corpus: Collection, part: JudgedQueries, rows: Tensor) -> QuerySamples:
    if not len(rows):
        raise UserError("a part has no queries; check data.root and the shares for validation")
    return QuerySamples(corpus, part.queries, part.judgments, rows=rows, with_documents=False)


def _cut(rows: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Return rows in two parts, drawn at random, the same for every run."""
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    order = rows[torch.randperm(len(rows), generator=generator)]
    count = max(1, round(share * len(rows)))
    return order[count:].sort().values, order[:count].sort().values


def _drawn(rows: Tensor, count: int, seed: int) -> Tensor:
    if not 1 <= count <= len(rows):
        raise UserError(f"num_labels is {count}, but there are {len(rows)} training queries")
    generator = torch.Generator().manual_seed(seed)
    return rows[torch.randperm(len(rows), generator=generator)[:count]].sort().values
