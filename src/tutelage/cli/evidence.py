"""What our studies found: the figures behind `tutelage methods` and `tutelage advise`.

evidence.json beside this file is written by benchmarks/evidence.py from benchmarks/results, which a
wheel does not have; a test compares the two. The sentences here are for a person to read; a test
finds their figures in docs/results.md and docs/recommendation.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tutelage.analysis.formatting import format_fixed

Gain = tuple[float, float, float]  # points over the baseline, and the ends of the 95 % interval

# Task -> the method to start with, and what we measured; a test compares the figures with
# docs/results.md and docs/recommendation.md.
START = {
    "classification": (
        "DIST",
        "within the gradient cap it gained +3.0, +2.0, +3.7, +3.0, +1.9 and +0.8 points in six "
        "settings of Fashion-MNIST, all with certainty, first of all methods in four and third in "
        "two, where RCKA with KD has +4.3 and +2.6; on CIFAR-10 +4.14 between small CNNs and +5.59 "
        "between ResNets, where FitNet has +9.25 and RCKA with KD +7.25, and +3.04 to a ViT, where "
        "RCKA has +6.72",
    ),
    "detection": (
        "SSIM",
        "+6.95 [+1.31, +12.60] points of AP on blood cells, and +0.81 [+0.68, +0.94] on trees, "
        "where FitNet has +1.16 [+0.37, +1.96]; 3 seeds each",
    ),
    "segmentation": (
        "DIST",
        "+2.66 [+0.21, +5.12] points of mIoU on MRI slices, 5 seeds, ahead on each; on street "
        "scenes +0.65 [−3.06, +4.36] in the best epoch and +1.15 [+0.08, +2.22] in the last, 3 "
        "seeds, where no other method gained",
    ),
    "pose": (
        None,
        "none is certain: OKDHP +0.5 [−0.9, +1.8] and FPD +0.1 [−0.4, +0.6] points of PCK on "
        "written digits; compare them with Baseline on your data",
    ),
    "retrieval": (
        "EmbedDistill",
        "nDCG@10 of 0.378 instead of 0.280 on Cranfield, and of 0.456 instead of 0.402 on WordNet "
        "with scores alone, where inherited documents lost",
    ),
    "recommendation": (
        "CD",
        "Recall@10 +0.0040 [+0.0032, +0.0048] on CiteULike, +0.0048 [+0.0013, +0.0084] on "
        "MovieLens-100K; UnKD gains recall of unpopular items, +0.0040 [+0.0030, +0.0050] and "
        "+0.0272 [+0.0170, +0.0374], and of all items −0.0003 [−0.0023, +0.0017] and +0.0035 "
        "[−0.0034, +0.0103]",
    ),
}

# Task -> where that was measured.
MEASURED_ON = {
    "detection": ("bccd", "205 photographs of blood cells, and deepforest, networks from scratch"),
    "segmentation": ("mni152", "slices of one brain, and camvid, networks from scratch"),
    "pose": ("pen-digits", "handwritten digits, and a mouse in mirror-mouse"),
    "retrieval": ("retrieval_cranfield", "1400 abstracts, and retrieval_wordnet"),
    "recommendation": ("citeulike-10", "sets of 5219 and (ml-100k) 943 users"),
}


@dataclass(frozen=True)
class Study:
    """A study of classification, against the student without a teacher.

    Attributes:
        result: name of its file in benchmarks/results, without the ending.
        folder: of the shipped recipes.
        data: name of the data.
        classes: of the data.
        labels: of the training part.
        teacher: kind of network, `CNN` or `ViT`.
        student: as teacher.
        capped: whether `train.gradient_cap` was 1; else weights were as in the recipes.
        seeds: number of seeds.
        steps: of training.
        ratio: how many times as many parameters the teacher has.
        teacher_top1: of the teacher on test data in percent; None if it is not known.
        baseline_top1: of the student without a teacher.
        baseline_ece: its expected calibration error.
        certain: the methods whose interval is above zero, the largest gain first.
        gains: by method, in points of top-1.
        ece: by method.
        recipes: names of the recipes in the folder, by method.
    """

    result: str
    folder: str
    data: str
    classes: int
    labels: int
    teacher: str
    student: str
    capped: bool
    seeds: int
    steps: int
    ratio: float
    teacher_top1: float | None
    baseline_top1: float
    baseline_ece: float
    certain: Sequence[str]
    gains: Mapping[str, Gain]
    ece: Mapping[str, float]
    recipes: Mapping[str, str]

    @property
    def labels_a_class(self) -> float:
        """How many labels a class had."""
        return self.labels / self.classes


def read_evidence() -> tuple[list[Study], Mapping[str, Any]]:
    """Return the studies, and what other weights for the labels were worth, by method."""
    content = json.loads((Path(__file__).parent / "evidence.json").read_text(encoding="utf-8"))
    names = [field.name for field in fields(Study)]
    studies = []
    for row in content["studies"]:
        gains = {name: (gain[0], gain[1], gain[2]) for name, gain in row["gains"].items()}
        studies.append(Study(**{name: row[name] for name in names} | {"gains": gains}))
    return studies, content["balance"]


def gain_text(study: Study, method: str) -> str:
    """Return the gain of a method with its interval.

    >>> study = next(s for s in read_evidence()[0] if s.result == "methods_vit-student-1000")
    >>> gain_text(study, "SRD")
    '+5.5 [+3.3, +7.8]'
    """
    return interval_text(study.gains[method])


def setting_text(study: Study, *, with_cap: bool = True) -> str:
    """Return what a study was, in a few words.

    >>> setting_text(next(s for s in read_evidence()[0] if s.result == "methods_vit-student-1000"))
    'Fashion-MNIST, 100 labels a class, CNN → ViT, no cap, 5 seeds'
    """
    parts = [
        study.data,
        f"{study.labels_a_class:.0f} labels a class",
        f"{study.teacher} → {study.student}",
    ]
    if with_cap:
        parts.append("capped" if study.capped else "no cap")
    return ", ".join([*parts, f"{study.seeds} seeds"])


def interval_text(gain: Sequence[float]) -> str:
    """Return a gain with its interval.

    >>> interval_text([0.5, -0.25, 1.0])
    '+0.5 [−0.2, +1.0]'
    """
    mean, low, high = (format_fixed(value, 1, sign=True) for value in gain)
    return f"{mean} [{low}, {high}]"
