"""Panels of joints: what is found, what is off, and what has no label."""

from __future__ import annotations

from tutelage.report.point_panels import point_rows
from tutelage.report.previews import Annotation, Points, Preview

TRUTH = Points([(10.0, 10.0), (50.0, 40.0), (0.0, 0.0)], [1.0, 1.0, 0.0])
FOUND = Points([(13.0, 14.0), (56.0, 40.0), (70.0, 70.0)], [0.9, 0.2, 0.8])


def test_joints_within_five_percent_are_found_and_others_stand_beside_the_truth() -> None:
    preview = Preview(
        index=4,
        source="data:,",
        width=100,
        height=80,
        truth=Annotation("truth", None, None, TRUTH),
        predictions=[Annotation("student", None, None, FOUND)],
        maps={},
    )
    (row,) = point_rows([preview], ["nose", "paw"])
    truth, student = row.panels
    assert truth.caption == "2 joints"
    assert [shape.tooltip for shape in truth.shapes] == ["nose", "paw"]
    assert student.caption == "1 of 2 found"
    assert [shape.kind for shape in student.shapes] == ["hit", "true", "false"]
    assert student.shapes[0].tooltip == "nose, score 0.90\n5.0 % away"
    assert student.shapes[2].tooltip == "paw, score 0.20\n6.0 % away"
    x, y, width, height = student.shapes[0].position
    assert (x + width / 2, y + height / 2) == (13.0, 14.0)
