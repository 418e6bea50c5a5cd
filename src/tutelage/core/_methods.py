"""Checks of a method, and the methods in a combined one."""

from __future__ import annotations

from collections.abc import Iterator

from tutelage.core._arguments import (
    check_kind,
    check_layer_names,
    check_task_weight,
    check_terms,
)
from tutelage.core.combined import CombinedMethod
from tutelage.core.method import Method
from tutelage.core.output import Step
from tutelage.errors import UserError


def check_method(method: object) -> None:
    """Raise unless this is a method that can be trained.

    Raises:
        UserError: If it is a list, another kind of object, or a method with a mistake in its class.
    """
    if isinstance(method, (list, tuple)):
        raise UserError(
            "the method is a list; put several together, as in CombinedMethod([KD(), RCKA()])"
        )
    check_kind("the method", method, Method, "KD()")
    assert isinstance(method, Method)
    if "_modules" not in vars(method):
        raise UserError(
            f"{type(method).__name__}.__init__ does not call super().__init__(); call it first"
        )
    check_task_weight(method)
    check_layer_names(f"student_layers of {type(method).__name__}", method.student_layers)
    check_layer_names(f"teacher_layers of {type(method).__name__}", method.teacher_layers)


def single_methods(method: Method) -> Iterator[Method]:
    """Give the methods in a combined one, or the method itself."""
    if isinstance(method, CombinedMethod):
        for inner in method:
            yield from single_methods(inner)
    else:
        yield method


def try_methods(method: Method, example: Step) -> None:
    """Call each method once on an example, and raise unless it gives named scalars.

    Raises:
        UserError: If one does not, or has no term left.
    """
    for single in single_methods(method):
        terms = single(example)
        check_terms(type(single).__name__, terms)
        # A method that only rebuilds the student, such as an ensemble, may add no term.
        if single.uses_teacher and not terms and not rebuilds_student(single):
            raise UserError(
                f"{type(single).__name__} has no term left with these weights and this number of "
                "classes; give one a weight"
            )


def rebuilds_student(method: Method) -> bool:
    """Return whether a method trains another student than the one it is given."""
    return type(method).build_student is not Method.build_student
