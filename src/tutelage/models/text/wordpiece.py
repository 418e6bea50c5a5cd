"""Cut the vocabulary of a WordPiece tokenizer down to the pieces that occur."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def occurring(tokenizer: Any, texts: Sequence[str]) -> list[int] | None:
    """Return the numbers of the pieces that occur in texts and of the one for unknown words.

    Args:
        tokenizer: of the package tokenizers.
        texts: any number of them.

    Returns:
        Sorted numbers; None for a tokenizer of another kind, whose vocabulary cannot be cut.
    """
    content = json.loads(tokenizer.to_str())
    if content["model"]["type"] != "WordPiece":
        return None
    found = {content["model"]["vocab"][content["model"]["unk_token"]]}
    for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False):
        found.update(encoding.ids)
    return sorted(found)


def trimmed(tokenizer: Any, pieces: Sequence[int]) -> Any:
    """Return a WordPiece tokenizer that knows these pieces only, numbered 0, 1, … in their order.

    A word with a piece that is left out is cut otherwise, or unknown.

    Args:
        tokenizer: of the package tokenizers.
        pieces: numbers in its vocabulary, with that for unknown words.
    """
    from tokenizers import Tokenizer

    content = json.loads(tokenizer.to_str())
    numbers = {piece: number for number, piece in enumerate(pieces)}
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = {
        text: numbers[piece] for text, piece in vocabulary.items() if piece in numbers
    }
    content["added_tokens"] = [
        {**token, "id": numbers[token["id"]]}
        for token in content["added_tokens"]
        if token["id"] in numbers
    ]
    content["post_processor"] = None  # it adds special tokens, which are not used here
    return Tokenizer.from_str(json.dumps(content))
