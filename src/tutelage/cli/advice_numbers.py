"""Advice on the cap, on weights and temperatures, and on what the teacher's lead is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.cli.advice_facts import Facts, Sentence, settings_of
from tutelage.cli.evidence import Study, gain_text, interval_text, setting_text
from tutelage.recipes.read import parse_recipe

HARD = 10.0  # times as hard as the labels a term pulls
TRIED = "kd, temperature "  # what a study calls KD with another one than the recipe's
OF_NETWORKS = ("layer", "input_shape", "channel")  # parts of names of settings
SHOWN = 4  # settings in a sentence
MANY_LABELS = 200.0  # a class, from which on weights of few labels were too high


def cap_advice(facts: Facts, nearest: Study, studies: Sequence[Study]) -> list[Sentence]:
    """Say what the cap was worth in the pair of studies that differ in nothing else."""
    pairs = [
        (free, capped)
        for free in studies
        for capped in studies
        if capped.capped and not free.capped and _setting(free) == _setting(capped)
    ]
    free, capped = min(
        pairs,
        key=lambda pair: (
            pair[0].labels != nearest.labels,
            (pair[0].teacher, pair[0].student) != (nearest.teacher, nearest.student),
        ),
    )
    shared = [name for name in free.gains if name in capped.gains and "," not in name]
    change = {name: capped.gains[name][0] - free.gains[name][0] for name in shared}
    gained = max(shared, key=lambda name: change[name])
    lost = min(shared, key=lambda name: change[name])
    sure = max(shared, key=lambda name: free.ece[name] - capped.ece[name])
    hard = {name: ratio for name, ratio in facts.pulls.items() if ratio > HARD}
    verb = "Keep" if facts.cap == 1 else "Set"
    why = ""
    if hard:
        term, ratio = max(hard.items(), key=lambda item: item[1])
        held = "which it holds down" if facts.cap is not None else "which nothing holds down"
        why = f" ({term} pulls {ratio:.0f} times as hard as the labels, {held})"
    text = (
        f"{verb} train.gradient_cap: 1{why}: it took {_change(gained, free, capped)}, and the "
        f"error of calibration of {sure} from {free.ece[sure]:.3f} to {capped.ece[sure]:.3f}"
    )
    if change[lost] < 0:
        text += f", though {_change(lost, free, capped)}"
    text += f" ({setting_text(capped, with_cap=False)})."
    return [Sentence(text, (free.result, capped.result))]


def weights_advice(
    facts: Facts, nearest: Study, studies: Sequence[Study], balance: Mapping[str, Any]
) -> list[Sentence]:
    """Say which weights to begin with.

    Heavier labels were studied without the cap, which does by itself what they do.
    """
    assert facts.classes is not None
    method = facts.method
    if method == "Baseline":
        return []
    if method == "DKD" and facts.settings.get("DKD.beta", 0.0) > 2:
        return [_lower_beta(studies)]
    is_other = bool(other_settings(facts, nearest))
    if nearest.capped and method in nearest.certain and (is_other or facts.cap == 1):
        weights = "the recipe's weights"
        if is_other:
            weights = f"the weights of {nearest.folder}/{nearest.recipes[method]}"
        text = (
            f"Begin with {weights}: within the cap they gave {gain_text(nearest, method)} in our "
            "nearest study."
        )
        return [Sentence(text, (nearest.result,))]
    changed = balance["gains"].get(method)
    is_many = facts.labels / facts.classes >= MANY_LABELS
    if changed is not None and is_many and facts.cap is None and not is_other:
        return [_heavier_labels(method, changed, studies, balance)]
    if method in balance["kept"] and not is_other:
        text = (
            f"Begin with the recipe's weights: for {method} they were the best of three tries "
            f"with {balance['labels']} labels and no cap."
        )
        return [Sentence(text, (balance["tries"],))]
    return [
        Sentence(
            f"No study of ours varied the weights of {method} in such a setting; `tutelage tune` "
            "does, on validation data."
        )
    ]


def _lower_beta(studies: Sequence[Study]) -> Sentence:
    study = next(study for study in studies if "DKD, β = 8" in study.gains)
    text = (
        f"Set beta to 0.5: DKD gained {gain_text(study, 'DKD')} with it and "
        f"{gain_text(study, 'DKD, β = 8')} with 8, the value for CIFAR-100 "
        f"({setting_text(study)})."
    )
    return Sentence(text, (study.result,))


def _heavier_labels(
    method: str, changed: Mapping[str, Any], studies: Sequence[Study], balance: Mapping[str, Any]
) -> Sentence:
    recipe = next(
        study for study in studies if study.labels == balance["labels"] and not study.capped
    )
    took = (
        f"with {balance['labels']} labels and no cap that took its gain from "
        f"{gain_text(recipe, method)} to {interval_text(changed['gain'])}"
    )
    heavier = f"the labels {changed['factor']} times as heavily for {method}"
    text = (
        f"Weigh {heavier} (task_weight): {took}."
        if changed["gain"][0] > recipe.gains[method][0]
        else f"Begin with the recipe's weights. Weighing {heavier} was best on validation data "
        f"of other seeds, but {took} on test data."
    )
    return Sentence(text, (recipe.result, balance["result"]))


def teacher_advice(facts: Facts, studies: Sequence[Study]) -> list[Sentence]:
    """Say what the teacher's lead is worth."""
    known = [study for study in studies if study.teacher_top1 is not None and study.capped]
    lead = {study.result: (study.teacher_top1 or 0.0) - study.baseline_top1 for study in known}
    small = min(known, key=lambda study: lead[study.result])
    best = max(small.gains, key=lambda name: small.gains[name][0])
    text = (
        "Train Baseline first, and see how far the teacher is ahead: where it was "
        f"{lead[small.result]:.1f} points, {_count(small)} gained with certainty ({best} "
        f"{gain_text(small, best)}; {setting_text(small)})"
    )
    large = max(
        (study for study in known if study.labels == small.labels),
        key=lambda study: lead[study.result],
    )
    if large is not small:
        text += (
            f", where it was {lead[large.result]:.1f} points, {_count(large)} "
            f"({large.teacher} → {large.student})"
        )
    own = ""
    if facts.teacher_top1 is not None:
        own = f" Yours has {facts.teacher_top1:.1f} % on validation data."
    return [Sentence(f"{text}.{own}", tuple(dict.fromkeys((small.result, large.result))))]


def temperature_advice(facts: Facts, studies: Sequence[Study]) -> list[Sentence]:
    """Say which temperature KD wanted, where it was studied."""
    if "KD" not in facts.method.split(" + "):
        return []
    study = next((study for study in studies if f"{TRIED}4" in study.gains), None)
    if study is None:
        return []
    names = {2: "KD", **{int(n.removeprefix(TRIED)): n for n in study.gains if n.startswith(TRIED)}}
    texts = [f"{gain_text(study, names[degree])} at {degree}" for degree in sorted(names)]
    is_certain = any(name in study.certain for name in names.values())
    text = (
        f"On KD's temperature we have one small study: gains of {', '.join(texts)}"
        f"{'' if is_certain else ', none certain'} ({setting_text(study)})."
    )
    return [Sentence(text, (study.result,))]


def other_settings(facts: Facts, study: Study) -> str:
    """Return in words which settings of the method a study had otherwise; none if its figure fits.

    Names of layers and shapes are those of other networks, so they are not compared.
    """
    recipe = study.recipes.get(facts.method)
    if recipe is None:
        return ""
    studied = settings_of(parse_recipe(f"{study.folder}/{recipe}"))
    changed = [
        f"{name.rpartition('.')[2]} {_shown(facts.settings[name])} instead of {_shown(value)}"
        for name, value in studied.items()
        if name in facts.settings
        and facts.settings[name] != value
        and not any(word in name for word in OF_NETWORKS)
    ]
    more = ", …" if len(changed) > SHOWN else ""
    return ", ".join(changed[:SHOWN]) + more


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def _change(method: str, free: Study, capped: Study) -> str:
    return f"the gain of {method} from {gain_text(free, method)} to {gain_text(capped, method)}"


def _setting(study: Study) -> tuple[str, int, str, str]:
    return study.data, study.labels, study.teacher, study.student


def _count(study: Study) -> str:
    count = len(study.certain)
    of = f"of {len(study.gains)} methods"
    return f"none {of}" if not count else f"{count} {of}"
