"""Which found boxes are true: the same at every threshold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tutelage.report.matching import THRESHOLDS, Boxes, Match, best_threshold, iou, match

CORNERS = st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(1, 6), st.integers(1, 6)).map(
    lambda box: [box[0], box[1], box[0] + box[2], box[1] + box[3]]
)


def boxes(draw_scores: bool) -> st.SearchStrategy[Boxes]:
    entry = st.tuples(CORNERS, st.integers(1, 2), st.integers(1, 99).map(lambda score: score / 100))
    many = st.lists(entry, max_size=8).map(lambda found: sorted(found, key=lambda one: -one[2]))
    return many.map(
        lambda found: Boxes(
            [one[0] for one in found],
            [one[1] for one in found],
            [one[2] for one in found] if draw_scores else (),
        )
    )


def test_a_true_box_is_found_once_by_the_surest_of_its_class() -> None:
    truth = Boxes([[0, 0, 10, 10]], [1])
    seen = Boxes([[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 10]], [2, 1, 1], [0.9, 0.8, 0.7])
    assert match(truth, seen) == Match([None, 0.8, None], [0.8])


def test_half_is_enough_and_less_is_not() -> None:
    truth = Boxes([[0, 0, 10, 10]], [1])
    assert match(truth, Boxes([[0, 0, 10, 5]], [1], [0.9])).ious == [0.5]
    assert match(truth, Boxes([[0, 0, 10, 4.9]], [1], [0.9])) == Match([None], [None])
    assert match(Boxes([[3, 3, 3, 3]], [1]), Boxes([[3, 3, 3, 3]], [1], [0.9])).ious == [
        None
    ]  # no extent


def test_the_best_of_several_true_boxes_is_taken() -> None:
    truth = Boxes([[0, 0, 10, 10], [1, 0, 11, 10]], [1, 1])
    seen = Boxes([[1, 0, 11, 10], [1, 0, 11, 10]], [1, 1], [0.9, 0.8])
    assert match(truth, seen).scores == [0.8, 0.9]


@given(boxes(False), boxes(True), st.sampled_from(THRESHOLDS))
def test_a_threshold_cuts_the_match_and_changes_nothing_else(
    truth: Boxes, seen: Boxes, threshold: float
) -> None:
    count = sum(score >= threshold for score in seen.scores)
    cut = Boxes(seen.corners[:count], seen.labels[:count], seen.scores[:count])
    whole, part = match(truth, seen), match(truth, cut)
    assert part.ious == whole.ious[:count]
    assert part.scores == [
        score if score is not None and score >= threshold else None for score in whole.scores
    ]
    assert sum(score is not None for score in whole.scores) == sum(
        value is not None for value in whole.ious
    )


@given(CORNERS, CORNERS)
def test_overlap_is_symmetric_and_a_share(one: list[int], other: list[int]) -> None:
    assert iou(one, other) == iou(other, one)
    assert 0 <= iou(one, other) <= 1
    assert iou(one, one) == 1


def test_the_slider_starts_where_found_and_false_balance() -> None:
    truth = Boxes([[0, 0, 4, 4], [10, 0, 14, 4]], [1, 1])
    seen = Boxes(
        [[0, 0, 4, 4], [10, 0, 14, 4], [20, 0, 24, 4], [30, 0, 34, 4]],
        [1] * 4,
        [0.62, 0.43, 0.31, 0.1],
    )
    assert best_threshold([(seen, match(truth, seen))]) == 0.4
    assert best_threshold([(Boxes([], []), match(truth, Boxes([], [])))]) == THRESHOLDS[-1]
