"""Exact search beside a bare product with top-k, and an epoch beside the student's own work.

1. 1000 queries × 100 000 documents × 384 numbers, best 100: `search` against `topk` of the same
   blocks of scores, without the care for ties, the order of equal scores and the checks; and the
   memory that the search takes beyond queries, documents and result.
2. A training step of pure query matching with the teacher's vectors from files, against forward and
   backward of the student's query tower alone, on the same texts.

python -m benchmarks.retrieval_speed [--rounds 9] [--out FILE]
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.timing import argument_parser, interleaved, median_ms, ratio, write_result
from tutelage.cache import CachedEncoder
from tutelage.core import Batch, Distiller, FrozenTeacher
from tutelage.core.collection import Collection
from tutelage.methods import EmbedDistill
from tutelage.models import StaticEncoder
from tutelage.tasks import Retrieval
from tutelage.tasks.retrieval import search
from tutelage.tasks.retrieval.search import DOCUMENT_BLOCK, QUERY_BLOCK

QUERIES, DOCUMENTS, WIDTH, DEPTH = 1000, 100_000, 384, 100
PIECES, TEXTS, WORDS, BATCH = 7000, 4096, 16, 64


def bare(queries: Tensor, documents: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the best scores and rows: products and top-k of the same blocks, and nothing else."""
    found = []
    for start in range(0, len(queries), QUERY_BLOCK):
        block = queries[start : start + QUERY_BLOCK]
        parts = []
        for first in range(0, len(documents), DOCUMENT_BLOCK):
            scores, rows = (block @ documents[first : first + DOCUMENT_BLOCK].mT).topk(k)
            parts.append((scores, rows + first))
        scores, rows = (torch.cat(values, 1) for values in zip(*parts, strict=True))
        best = scores.topk(k)
        found.append((best.values, rows.gather(1, best.indices)))
    scores, rows = (torch.cat(values) for values in zip(*found, strict=True))
    return scores, rows


def search_speed(rounds: int) -> dict[str, Any]:
    """Time both, and measure the memory of the search."""
    generator = torch.Generator().manual_seed(0)
    queries = torch.nn.functional.normalize(torch.randn(QUERIES, WIDTH, generator=generator))
    documents = torch.nn.functional.normalize(torch.randn(DOCUMENTS, WIDTH, generator=generator))
    # Before anything else, so that freed memory is not used again.
    search(queries[:QUERY_BLOCK], documents[:100], DEPTH)  # the library's own buffers
    mib = extra_mib(lambda: search(queries, documents, DEPTH))
    seconds = interleaved(
        {
            "search": lambda: search(queries, documents, DEPTH),
            "bare": lambda: bare(queries, documents, DEPTH),
        },
        rounds,
    )
    return {
        "shape": [QUERIES, DOCUMENTS, WIDTH, DEPTH],
        "search_ms": median_ms(seconds["search"]),
        "bare_ms": median_ms(seconds["bare"]),
        "ratio": ratio(seconds["search"], seconds["bare"]),
        "extra_mib": mib,
    }


def extra_mib(call: Callable[[], object]) -> float:
    """Return by how much the resident memory of this process grows at most during a call."""
    before = _resident_mib()
    peak = before
    is_done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_done.is_set():
            peak = max(peak, _resident_mib())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    call()
    is_done.set()
    watcher.join()
    return peak - before


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def matching_speed(rounds: int) -> dict[str, Any]:
    """Time steps of query matching with stored vectors, and the student's own work."""
    with tempfile.TemporaryDirectory() as folder:
        encoder = _encoder(Path(folder))
        generator = torch.Generator().manual_seed(0)
        words = torch.randint(0, PIECES, (TEXTS, WORDS), generator=generator).tolist()
        texts = [" ".join(f"w{word}" for word in row) for row in words]
        queries = Collection("train", [str(n) for n in range(TEXTS)], texts)
        teacher = CachedEncoder(StaticEncoder(encoder, hidden=None), f"{folder}/cache")
        teacher.prepare([(queries, "query")])
        student = StaticEncoder(encoder)
        method = EmbedDistill(score_weight=0.0, task_weight=0.0, inherit_documents=False)
        distiller = Distiller(student, FrozenTeacher(teacher), method, Retrieval())
        batches = [
            Batch({"inputs": texts[start : start + BATCH], "ids": torch.arange(BATCH)})
            for start in range(0, TEXTS, BATCH)
        ]
        distiller.setup(batches[0])
        for batch in batches:  # the pieces of all texts, which are cut once in a run
            student.embed(batch.inputs, "query")

        def matching() -> None:
            for batch in batches:
                sum(distiller(batch).values()).backward()

        def own() -> None:
            for batch in batches:
                student.embed(batch.inputs, "query").sum().backward()

        seconds = interleaved({"matching": matching, "own": own}, rounds)
    return {
        "texts": TEXTS,
        "batch": BATCH,
        "parameters": sum(p.numel() for p in student.parameters()),
        "matching_ms": median_ms(seconds["matching"]),
        "own_ms": median_ms(seconds["own"]),
        "ratio": ratio(seconds["matching"], seconds["own"]),
    }


def _encoder(folder: Path) -> str:
    """Write a tokenizer of whole words, and random word vectors."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {"[UNK]": 0, **{f"w{number}": number + 1 for number in range(PIECES)}}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    vectors = torch.randn(len(vocabulary), WIDTH, generator=torch.Generator().manual_seed(1))
    save_file({"word_embeddings.weight": vectors}, folder / "model.safetensors")
    return str(folder)


def main() -> None:
    """Measure and write benchmarks/results/retrieval_speed.json."""
    arguments = argument_parser(__doc__, rounds=9).parse_args()
    torch.set_num_threads(1)
    content = {
        "search": search_speed(arguments.rounds),
        "matching": matching_speed(arguments.rounds),
    }
    print(content)
    print(write_result("retrieval_speed", content, arguments.out))


if __name__ == "__main__":
    main()
