"""Fewer points than patches: an error for people before anything is trained."""

from typing import Any

import pytest
import yaml

from pointloom.errors import ParamsError
from pointloom.models import build_encoder
from pointloom.stages.enough_points import check_enough_points
from pointloom.stages.pretrain import PretrainParams, pretrain
from pointloom.stages.pretrain_methods import BUILDERS
from pointloom.stages.read_params import validate
from pointloom.stages.signature import read_signature
from pointloom.workspace import template


@pytest.mark.parametrize(
    ("name", "args", "enough"),
    [
        ("point_mae_tiny", {"num_groups": 32, "group_size": 16}, 32),
        ("point_mae_tiny", {"num_groups": 8, "group_size": 16}, 16),
        ("point_m2ae_tiny", {}, 128),
    ],
)
def test_a_point_per_patch_and_per_member_is_enough(name: str, args: dict[str, Any], enough: int) -> None:
    encoder = build_encoder(name, **args)
    check_enough_points(encoder, enough, where="here")
    with pytest.raises(
        ParamsError, match=rf"here: clouds of {enough - 1} points .* sampling.num_points to {enough} or more"
    ):
        check_enough_points(encoder, enough - 1, where="here")


def test_encoder_without_patches_takes_any_number() -> None:
    check_enough_points(build_encoder("pointnet"), 16, where="here")


@pytest.mark.parametrize(
    ("method", "encoder", "patches"),
    [("mae", "point_mae_tiny", 32), ("m2ae", "point_m2ae_tiny", 128), ("m2ae", "point_mae_tiny", 128)],
)
def test_methods_count_every_patch_that_they_cut(method: str, encoder: str, patches: int) -> None:
    """Below a plain encoder Point-M2AE decodes finer scales, which have more patches than the encoder."""
    entry = yaml.safe_load(template("profiles/systems/smoke.yaml"))["pretrain"][method] | {"encoder": encoder}
    models = read_signature("pretrain", pretrain).params
    for num_points, enough in ((patches, True), (patches - 1, False)):
        values = entry | {"sampling": entry["sampling"] | {"num_points": num_points}}
        params: PretrainParams = validate(models, values, where="test")  # type: ignore[assignment]
        if enough:
            assert BUILDERS[method](params)  # type: ignore[arg-type]
            continue
        with pytest.raises(ParamsError, match=rf"clouds of {num_points} points cannot be cut into {patches} patches"):
            BUILDERS[method](params)  # type: ignore[arg-type]
