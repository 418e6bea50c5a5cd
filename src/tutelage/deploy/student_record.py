"""What student.json says of a student's inputs and answers, checked."""

from __future__ import annotations

from tutelage.core import Task
from tutelage.core.prediction import ClassMap
from tutelage.data.image_input import ImageInput
from tutelage.engine.checks.student_facts import FIX, StudentFacts
from tutelage.errors import UserError


def input_rule(facts: StudentFacts) -> ImageInput | None:
    """Return how images enter; None where inputs are no images.

    Raises:
        UserError: If the record is damaged.
    """
    record = facts.entries.get("input")
    if record is None:
        return None
    if not isinstance(record, dict):
        raise UserError(f"the 'input' in {facts.path} does not say how images enter; {FIX}")
    try:
        return ImageInput.from_record(record)
    except UserError as error:
        raise UserError(f"{facts.path}: {error}; {FIX}") from error


def class_map(facts: StudentFacts, task: Task) -> ClassMap:
    """Return the names of the classes by label, and the data's own ids.

    Args:
        facts: of the run.
        task: of the run; where it has a number of classes, there are as many names.

    Raises:
        UserError: If there are more or fewer, which would give answers wrong names.
    """
    names = facts.classes or []
    wanted = getattr(task, "num_classes", None)
    if names and wanted is not None and len(names) != wanted:
        raise UserError(
            f"the 'classes' in {facts.path} are {len(names)}, and its task has {wanted}; {FIX}"
        )
    ids = facts.entries.get("ids")
    if ids is not None and not (isinstance(ids, list) and len(ids) == len(names)):
        raise UserError(f"the 'ids' in {facts.path} are not one for each class; {FIX}")
    return ClassMap(names, ids)


def temperature_of(facts: StudentFacts) -> float:
    """Return the temperature that was fitted after training; 1 without.

    Raises:
        UserError: If it is no positive number.
    """
    value = facts.entries.get("temperature", 1.0)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 < value < float("inf"):
        raise UserError(f"the 'temperature' in {facts.path} is no positive number; {FIX}")
    return float(value)
