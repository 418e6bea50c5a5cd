"""A cross-encoder: a transformer that reads query and document together, as a teacher of scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core.modes import device_of
from tutelage.errors import NotInstalledError, UserError
from tutelage.models.text.dual_encoder import check_texts
from tutelage.models.text.dual_pooling import Pooling, dual_pooling
from tutelage.models.text.source import find_source


class CrossEncoder(nn.Module):
    """A transformer of Hugging Face that scores each query with its own documents.

    Without `pooling` it is a sequence classifier with one label, as the cross-encoders of
    sentence-transformers are, and the score is its logit. With it, any encoder: the score is the
    inner product of the vectors u(q|d) and v(d|q) of `dual_pooling`, which can be matched, too.

    As the teacher of `EmbedDistill`; it ranks no corpus, so `teacher.preflight` is false.

    Args:
        source: a folder, `package:NAME`, or a name on a hub.
        pooling: of the tokens of query and of document; None takes the classifier's logit.
        max_length: tokens of a pair that are read, of which the document is cut; None is the
            model's own limit.
        batch_size: pairs at a time.

    Raises:
        UserError: If transformers is missing, there is no such model, or it has several labels.
    """

    def __init__(
        self,
        source: str,
        pooling: Pooling | None = None,
        max_length: int | None = None,
        batch_size: int = 32,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise UserError(f"batch_size of CrossEncoder is at least 1, got {batch_size}")
        self.source = source
        self.pooling = pooling
        self.batch_size = batch_size
        self._tokenizer, self.model = _load(source, is_classifier=pooling is None)
        limit = getattr(self.model.config, "max_position_embeddings", 512)
        self.max_length = min(limit, self._tokenizer.model_max_length, max_length or limit)

    def forward(self, queries: Sequence[str], documents: Sequence[str] = ()) -> dict[str, Tensor]:
        """Return the scores (B, k) of B queries with their k documents each.

        Args:
            queries: B texts.
            documents: B · k texts, the k documents of query 0 first.

        Returns:
            `scores`, and with `pooling` also `queries` and `documents` (B, k, d), a vector a pair.

        Raises:
            UserError: If there are no documents, or not the same number for each query.
        """
        asked = check_texts(queries, "CrossEncoder")
        read = check_texts(documents, "CrossEncoder")
        if not read or len(read) % len(asked):
            raise UserError(
                f"a cross-encoder scores each query with its own documents, got {len(asked)} "
                f"queries and {len(read)} documents; give every query the same number, and leave "
                "generated queries, which have none, out (method.shares)"
            )
        per_query = len(read) // len(asked)
        pairs = [(asked[number // per_query], text) for number, text in enumerate(read)]
        parts = [
            self._scored(pairs[start : start + self.batch_size])
            for start in range(0, len(pairs), self.batch_size)
        ]
        joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        shape = (len(asked), per_query)
        return {name: value.view(*shape, *value.shape[1:]) for name, value in joined.items()}

    def _scored(self, pairs: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
        """Return what is known of some pairs, one row a pair."""
        encoded = self._encoded(pairs)
        output = self.model(**encoded.to(device_of(self)))
        if self.pooling is None:
            return {"scores": output.logits.squeeze(1)}
        segments = torch.tensor(
            [
                [0 if part is None else part + 1 for part in encoded.sequence_ids(row)]
                for row in range(len(pairs))
            ]
        )
        tokens = output.last_hidden_state
        query, document = dual_pooling(tokens, segments.to(tokens.device), pooling=self.pooling)
        return {"scores": (query * document).sum(1), "queries": query, "documents": document}

    def _encoded(self, pairs: Sequence[tuple[str, str]]) -> Any:
        """Return the tokens of pairs; what is too long is cut at the document's end."""
        try:
            return self._tokenizer(
                [query for query, _ in pairs],
                [document for _, document in pairs],
                padding=True,
                truncation="only_second",
                max_length=self.max_length,
                return_tensors="pt",
            )
        except Exception as error:  # the tokenizer's own kind, which is not public
            raise UserError(
                f"pairs cannot be cut to {self.max_length} tokens ({error}); a query fills them "
                "alone: raise max_length, or shorten the query"
            ) from error


def _load(source: str, is_classifier: bool) -> tuple[Any, Any]:
    """Return tokenizer and model of a source."""
    try:
        from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer
    except ImportError as error:
        raise NotInstalledError("CrossEncoder", "transformers", "retrieval") from error
    found = find_source(source)
    kind = AutoModelForSequenceClassification if is_classifier else AutoModel
    try:
        tokenizer = AutoTokenizer.from_pretrained(found)
        model = kind.from_pretrained(found)
    except Exception as error:  # a hub, a folder of another kind, a damaged file
        text = " ".join(str(error).split())[:200]
        raise UserError(
            f"transformers cannot open {source!r} ({text}); give the folder of a model, or "
            "package:NAME"
        ) from error
    if is_classifier and model.config.num_labels != 1:
        raise UserError(
            f"{source} gives {model.config.num_labels} labels and no single score; give a "
            "cross-encoder with one label, or set pooling"
        )
    return tokenizer, model
