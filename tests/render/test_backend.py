from pathlib import Path

import pytest

from pointloom.errors import BackendError
from pointloom.render.backend import choose_renderer

NO_EGL = "__EGL_VENDOR_LIBRARY_DIRS"  # the EGL loader finds no driver when this names an empty folder


def test_without_egl_the_ray_caster_draws_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NO_EGL, str(tmp_path))
    chosen = choose_renderer("auto", require_gpu=False)
    assert chosen.name == "raycast"
    assert chosen.device.startswith("embreex")
    assert "EGL does not work" in chosen.problem
    assert choose_renderer("raycast", require_gpu=False).problem == ""


def test_egl_alone_without_a_driver_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NO_EGL, str(tmp_path))
    with pytest.raises(BackendError, match=r"no renderer works: egl: .*EGL does not work"):
        choose_renderer("egl", require_gpu=False)


def test_a_required_gpu_is_not_replaced_by_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NO_EGL, str(tmp_path))
    with pytest.raises(BackendError, match=r"require_gpu is set, but views would be drawn on the CPU \(raycast"):
        choose_renderer("auto", require_gpu=True)


def test_llvmpipe_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIBGL_ALWAYS_SOFTWARE", "1")
    monkeypatch.setenv("__EGL_VENDOR_LIBRARY_FILENAMES", "/usr/share/glvnd/egl_vendor.d/50_mesa.json")
    try:
        choose_renderer("egl", require_gpu=False)
    except BackendError as error:
        pytest.skip(str(error))
    with pytest.raises(BackendError, match=r"drawn on the CPU \(egl, llvmpipe"):
        choose_renderer("egl", require_gpu=True)
