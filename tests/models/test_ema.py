"""The teacher: a frozen copy whose weights are moving averages."""

import pytest
import torch
from torch import nn

from pointloom.models.ema import EmaTeacher


def _student() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))


def test_weights_are_moving_averages_of_the_students() -> None:
    student = _student()
    teacher = EmaTeacher(student, buffers="none", always_evaluate=False)
    first = student[0].weight.detach().clone()
    with torch.no_grad():
        student[0].weight.add_(1.0)
    teacher.update(student, 0.75)
    torch.testing.assert_close(teacher.network[0].weight, first + 0.25)
    teacher.update(student, 0.75)
    torch.testing.assert_close(teacher.network[0].weight, first + 0.25 + 0.75 * 0.25)


def test_buffers_are_the_teachers_own_or_the_students() -> None:
    student = _student()
    own = EmaTeacher(student, buffers="none", always_evaluate=False)
    copied = EmaTeacher(student, buffers="copy", always_evaluate=False)
    student(5 + torch.randn(8, 3))
    for teacher in (own, copied):
        teacher.update(student, 0.9)
    assert torch.equal(copied.network[1].running_mean, student[1].running_mean)
    assert torch.equal(own.network[1].running_mean, torch.zeros(4))


def test_mode_follows_unless_it_always_evaluates() -> None:
    student = _student()
    following = EmaTeacher(student, buffers="none", always_evaluate=False)
    still = EmaTeacher(student, buffers="none", always_evaluate=True)
    method = nn.ModuleList([student, following, still]).train()
    assert following.network[2].training
    assert not still.network[2].training
    method.eval()
    assert not following.network[2].training


def test_no_gradient_reaches_teacher_or_input() -> None:
    teacher = EmaTeacher(_student(), buffers="none", always_evaluate=False)
    assert not teacher(torch.randn(4, 3, requires_grad=True)).requires_grad
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_momentum_out_of_range_is_refused() -> None:
    student = _student()
    with pytest.raises(ValueError, match=r"0\.\.1, got 1\.5"):
        EmaTeacher(student, buffers="none", always_evaluate=False).update(student, 1.5)
