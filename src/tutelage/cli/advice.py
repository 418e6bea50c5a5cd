"""Advice on method, weights and cap: each sentence with the study of ours that it rests on.

Where no study fits, a sentence says so and rests on none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tutelage.cli.advice_facts import Facts, Sentence
from tutelage.cli.advice_numbers import (
    cap_advice,
    other_settings,
    teacher_advice,
    temperature_advice,
    weights_advice,
)
from tutelage.cli.evidence import (
    MEASURED_ON,
    START,
    Study,
    gain_text,
    read_evidence,
    setting_text,
)

FAR = 3.0  # how many times more or fewer labels than a study make it say little
NAMED = 3  # methods in a sentence


def advise(facts: Facts) -> list[Sentence]:
    """Return advice, the most important first."""
    if facts.task != "Classification" or facts.classes is None:
        return _other_task(facts)
    studies, balance = read_evidence()
    nearest = nearest_study(facts, studies)
    sentences = [*_methods(facts, nearest), *_distance(facts, nearest, studies)]
    sentences += _own_method(facts, nearest)
    sentences += cap_advice(facts, nearest, studies)
    sentences += weights_advice(facts, nearest, studies, balance)
    sentences += teacher_advice(facts, studies)
    sentences += temperature_advice(facts, studies)
    sentences += _pairs(facts)
    return sentences


def nearest_study(facts: Facts, studies: Sequence[Study]) -> Study:
    """Return the study that is most like a recipe.

    Kinds of networks count most, then the number of labels a class, then whether there is a cap,
    then how much larger the teacher is.
    """
    assert facts.classes is not None
    labels_a_class = facts.labels / facts.classes

    def distance(study: Study) -> tuple[int, float, bool, float]:
        kinds = (study.teacher != facts.teacher) + (study.student != facts.student)
        share = abs(math.log(study.labels_a_class / labels_a_class))
        size = 0.0 if facts.ratio is None else abs(math.log(study.ratio / facts.ratio))
        return kinds, round(share, 3), study.capped != (facts.cap is not None), size

    return min(studies, key=distance)


def _other_task(facts: Facts) -> list[Sentence]:
    """Return what we measured on another task, if anything."""
    task = {"OpenSetClassification": "open set", "Detection": "detection"}.get(
        facts.task, facts.task.lower()
    )
    if task not in START:
        return [
            Sentence(
                f"No study of ours is of {facts.task}: train Baseline beside two or three methods, "
                "with several seeds, before you believe one of them."
            )
        ]
    name, measured = START[task]
    result, where = MEASURED_ON[task]
    begin = f"Begin with {name}: {measured}." if name else f"Of {task}, {measured}."
    return [
        Sentence(begin, (result,)),
        Sentence(
            f"That was on {where}; whether it carries over to your {facts.labels:,} training "
            "samples is not measured, so train Baseline beside it."
        ),
    ]


def _methods(facts: Facts, study: Study) -> list[Sentence]:
    certain = study.certain[:NAMED]
    if certain:
        gains = ", ".join(f"{name} {gain_text(study, name)}" for name in certain)
        text = (
            f"Begin with {certain[0]}: in our nearest study it gained most over the student "
            f"without a teacher, in points of top-1: {gains} ({setting_text(study)})."
        )
    else:
        best = max(study.gains, key=lambda name: study.gains[name][0])
        text = (
            f"Expect little: in our nearest study no method gained with certainty, {best} most "
            f"with {gain_text(study, best)} ({setting_text(study)}); train Baseline beside all "
            "others."
        )
    return [Sentence(text, (study.result,))]


def _distance(facts: Facts, study: Study, studies: Sequence[Study]) -> list[Sentence]:
    """Say where the nearest study is far from the recipe."""
    assert facts.classes is not None
    far = []
    if facts.teacher is None:
        far.append("one teacher")
    elif (study.teacher, study.student) != (facts.teacher, facts.student):
        far.append(f"a {facts.student} distilled from a {facts.teacher}")
    times = facts.labels / facts.classes / study.labels_a_class
    if not 1 / FAR <= times <= FAR:
        far.append(f"{facts.labels / facts.classes:.0f} labels a class")
    if facts.classes > FAR * study.classes:
        far.append(f"{facts.classes} classes")
    ratios = [known.ratio for known in studies]
    if facts.ratio is not None and not min(ratios) / FAR <= facts.ratio <= max(ratios) * FAR:
        far.append(f"a teacher of {facts.ratio:.3g} times as many parameters")
    if not 1 / FAR <= facts.steps / study.steps <= FAR:
        far.append(f"a run of {facts.steps:,} steps")
    if not far:
        return []
    return [
        Sentence(
            f"No study of ours has {' or '.join(far)}, so take that as a guess, and compare two or "
            "three methods with several seeds."
        )
    ]


def _own_method(facts: Facts, study: Study) -> list[Sentence]:
    if facts.method == "Baseline":
        return []
    known = study.gains.get(facts.method)
    if known is None:
        return [Sentence(f"No figure of that study is of the recipe's {facts.method}.")]
    changed = other_settings(facts, study)
    if facts.method in study.certain[:NAMED] and not changed:
        return []
    verdict = "with certainty" if facts.method in study.certain else "not certain"
    if known[2] < 0:
        verdict = "a loss"
    gain = gain_text(study, facts.method)
    text = f"The recipe's {facts.method} gained {gain} there, {verdict}."
    if changed:
        text = (
            f"{facts.method} gained {gain} there, {verdict}, but not as in this recipe: {changed}."
        )
    return [Sentence(text, (study.result,))]


def _pairs(facts: Facts) -> list[Sentence]:
    if not facts.pairs or not any(name.endswith(".layer_pairs") for name in facts.settings):
        return []
    pairs = ", ".join(f"{student}: {teacher}" for student, teacher in facts.pairs.items())
    return [
        Sentence(
            "Which layers to pair, no study of ours compares; those that agree most now are "
            f"layer_pairs: {{{pairs}}}."
        )
    ]
