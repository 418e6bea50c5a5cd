"""Write the query tower of a student as a model of sentence-transformers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from tutelage.io import write_json, write_text

if TYPE_CHECKING:
    from tutelage.models.text.dual_encoder import DualEncoder

INDEX = "index.json"  # beside the model: the documents that its queries are for


def dense(layer: nn.Linear, activation: nn.Module | None = None) -> nn.Module:
    """Return a linear layer as a module of sentence-transformers, with the same weights."""
    from sentence_transformers.base.modules import Dense

    module: nn.Module = Dense(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        activation_function=nn.Identity() if activation is None else activation,
        init_weight=layer.weight.detach().clone(),
        init_bias=None if layer.bias is None else layer.bias.detach().clone(),
    )
    return module


def normalize() -> nn.Module:
    """Return the module that scales vectors to length 1."""
    from sentence_transformers.base.modules import Normalize

    module: nn.Module = Normalize()
    return module


def write_sentence_transformer(encoder: DualEncoder, folder: Path) -> None:
    """Write the query tower, with its projection, and a card that names the document index.

    Args:
        encoder: the student.
        folder: exists and is empty.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        warnings.warn(
            "the student is saved as student.safetensors only, and not for sentence-transformers, "
            "which is not installed; pip install 'tutelage[retrieval]'",
            stacklevel=2,
        )
        return
    modules = encoder.sentence_modules()
    if modules is None:
        return
    prompts = encoder.prompts()
    model = SentenceTransformer(
        modules=modules,
        device="cpu",
        prompts=prompts,
        default_prompt_name="query" if "query" in prompts else None,
    )
    model.save(str(folder), create_model_card=False)
    card = encoder.index_card()
    if card is not None:
        write_json(folder / INDEX, card)
    write_text(folder / "README.md", _card(encoder, card))


def _card(encoder: DualEncoder, index: dict[str, Any] | None) -> str:
    parameters = sum(p.numel() for p in encoder.parameters())
    length = "of length 1" if encoder.normalized else "as they are, scored by inner product"
    lines = [
        "---",
        "library_name: sentence-transformers",
        "pipeline_tag: sentence-similarity",
        "tags: [sentence-transformers, retrieval, distillation]",
        "---",
        "# Query encoder, distilled with tutelage",
        "",
        f"{parameters:,} parameters; vectors of width {encoder.dim}, {length}.",
        "",
        "    from sentence_transformers import SentenceTransformer",
        '    queries = SentenceTransformer("this/folder").encode(["a query"])',
        "",
    ]
    if index is None:
        lines.append("Documents are encoded by the same model.")
    else:
        encoder_lines = [f"    {key}: {value}" for key, value in index["encoder"].items()]
        lines += [
            "**Use it with this document index only**: it encodes queries into the space of its "
            "teacher, whose document vectors it was trained with.",
            "",
            f"    collection: {index['name']}, {index['documents']} documents",
            f"    texts: {index['texts']}",
            *encoder_lines,
        ]
    return "\n".join(lines) + "\n"
