"""What `tutelage study retrieval/...` found, query by query: paired differences, and latencies.

Every student of the study is loaded once more and ranks the corpus for every test query. A
difference between two rows is paired by query, after the mean over seeds, so its standard error is
that over queries: the seeds of a row agree better than the queries do. A latency is the median CPU
time of one query by itself on one core, tokenizer included.

tutelage study retrieval/cranfield --seeds 3 --out runs/cranfield
python -m benchmarks.retrieval_study retrieval/cranfield runs/cranfield
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import write_result
from tutelage.analysis.study import collect, summarize
from tutelage.cli.networks import open_run
from tutelage.core.modes import eval_mode
from tutelage.engine.dry_run import num_parameters
from tutelage.engine.evaluate import EvalLoading, evaluation
from tutelage.engine.finished_run import setup_finished_run
from tutelage.io import read_json
from tutelage.models import DualEncoder
from tutelage.tasks.retrieval import paired_test
from tutelage.tasks.retrieval.bm25 import bm25_ranking
from tutelage.tasks.retrieval.evaluation import RankedPart, evaluate_part

ORDER = ("baseline", "score", "inherited", "embed_distill", "embed_distill_generated")
METRICS = ("ndcg@10", "mrr@10", "recall@100", "ndcg@10_without_grade_0")
TIMED = 60  # queries


def measure(folder: Path, seeds: int) -> dict[str, Any]:
    """Return rows (mean over seeds, retention, latency) and the paired steps between them."""
    methods = [name for name in ORDER if (folder / name / "seed0/metrics.json").exists()]
    by_query: dict[str, dict[str, Tensor]] = {}
    rows: dict[str, dict[str, Any]] = {}
    for method in methods:
        found = [_run(folder / method / f"seed{seed}") for seed in range(seeds)]
        setup, student, part = found[-1][1:]
        values = {
            name: torch.stack([metrics[name] for metrics, *_ in found]).mean(0)
            for name in METRICS
            if name in found[0][0]
        }
        by_query[method] = values
        rows[method] = _row(values, student, part)
        teacher = setup.teacher.models()["teacher"] if setup.teacher.models() else None
    assert isinstance(teacher, DualEncoder)
    with eval_mode(teacher):
        values = dict(evaluate_part(teacher, part).by_query)
    encoder = getattr(teacher, "encoder", teacher)  # without its cache, which would answer at once
    by_query["teacher"] = values
    rows["teacher"] = _row(values, encoder, part)
    ranking = bm25_ranking(list(part.corpus.items), _texts(part), part.depth)
    values = part.metrics(torch.arange(len(part.rows)), ranking)
    by_query["bm25"] = values
    rows["bm25"] = {name: float(values[name].mean()) for name in METRICS if name in values}
    pairs = list(itertools.pairwise(methods))
    pairs += [(methods[-1], "teacher"), ("bm25", methods[-1]), ("inherited", methods[-1])]
    return {
        "queries": len(part.rows),
        "documents": len(part.corpus),
        "systems": {name: rows[name] for name in ("bm25", "teacher", *methods)},
        "steps": [
            _step(by_query, *pair) for pair in dict.fromkeys(pairs) if set(pair) <= set(by_query)
        ],
    }


def _run(folder: Path) -> tuple[Mapping[str, Tensor], Any, DualEncoder, RankedPart]:
    """Return the metrics by query of a finished run, its setup, its student and the test part."""
    setup, student = setup_finished_run(open_run(folder).build(), folder)
    assert isinstance(student, DualEncoder)
    loading = EvalLoading(64, 0, torch.device("cpu"))
    part = RankedPart.of(setup.parts, evaluation("test", loading))
    with eval_mode(student):
        return evaluate_part(student, part).by_query, setup, student, part


def _row(values: Mapping[str, Tensor], encoder: DualEncoder, part: RankedPart) -> dict[str, Any]:
    row: dict[str, Any] = {name: float(values[name].mean()) for name in METRICS if name in values}
    row["parameters"] = num_parameters(encoder)
    row["query_ms"] = query_ms(encoder, _texts(part)[:TIMED])
    return row


def query_ms(encoder: DualEncoder, texts: Sequence[str]) -> float:
    """Return the median CPU time of one query by itself."""
    seconds = []
    with torch.no_grad(), eval_mode(encoder):
        encoder.embed(texts[:1], "query")
        # What a static encoder remembers of a text would save it the tokenizer.
        for number, text in enumerate(texts):
            start = time.process_time()
            encoder.embed([f"{text} {number}"], "query")
            seconds.append(time.process_time() - start)
    return median(seconds) * 1e3


def _texts(part: RankedPart) -> list[str]:
    return [str(text) for text in part.queries.take(part.rows.tolist())]


def _step(by_query: Mapping[str, Mapping[str, Tensor]], first: str, second: str) -> dict[str, Any]:
    """Return what the second row gains over the first, paired by query."""
    test = paired_test(by_query[second]["ndcg@10"], by_query[first]["ndcg@10"])
    return {
        "from": first,
        "to": second,
        "difference": test.difference,
        "standard_error": test.standard_error,
        "p_value": test.p_value,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure a study and write benchmarks/results/retrieval_<name>.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", help="folder of the shipped recipes")
    parser.add_argument("study", type=Path, help="folder of the study")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", help="file of the result")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    folder = arguments.study
    methods = [name for name in ORDER if (folder / name).is_dir()]
    runs = collect(folder, methods, arguments.seeds)
    for method, by_seed in runs.items():
        for seed, run in by_seed.items():
            environment = read_json(folder / method / f"seed{seed}" / "environment.json", "")
            run["commit"] = environment["commit"]
    content = {
        "recipes": arguments.recipes,
        "monitor": "ndcg@10",
        **measure(folder, arguments.seeds),
        "summary": summarize(runs, "ndcg@10"),
        "runs": json.loads(json.dumps(runs)),
    }
    name = "retrieval_" + arguments.recipes.removeprefix("retrieval/").replace("/", "_")
    print(write_result(name, content, arguments.out))


if __name__ == "__main__":
    main()
