"""3DETR: sizes, matching against brute force, its loss against a plain loop, masks, and that it learns by heart."""

import math
from itertools import permutations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pointloom.models.detr3d import Detr3d
from pointloom.models.detr_encoder import DetrEncoder, detr, detr_masked
from pointloom.models.detr_layers import Attention, FourierEmbedding
from pointloom.models.detr_loss import AXIS_ALIGNED, ORIENTED, DetrBoxes, DetrWeights, SceneBounds, detr_losses, match
from pointloom.ops import generalized_box_iou
from pointloom.structures import DetectionBatch, Detector
from pointloom.tasks.box_matches import match_boxes
from pointloom.tasks.detection import KeepRules, find_boxes
from pointloom.tasks.detection_scores import detection_scores
from tests.tasks.boxed_rooms import boxed_batch, boxed_scene


def tiny(*, num_headings: int = 1, masked: bool = False, weights: DetrWeights = AXIS_ALIGNED) -> Detr3d:
    build = detr_masked if masked else detr
    encoder = build(dim=32, num_tokens=128, num_neighbors=8, radius=0.4, dropout=0.0)
    return Detr3d(
        encoder, num_classes=2, num_headings=num_headings, weights=weights, num_queries=16, dim=32, depth=2,
        hidden=32, dropout=0.0, head_dropout=0.0, projection=2,
    )  # fmt: skip


def test_they_have_the_published_sizes() -> None:
    """Computed by hand from the layers of section 3.2 and the code; the paper says 7.3M."""
    for encoder, projection, wanted in ((detr(), 3, 7_305_691), (detr_masked(), 2, 7_438_555)):
        model = Detr3d(encoder, num_classes=18, num_headings=1, weights=AXIS_ALIGNED, projection=projection)
        assert sum(p.numel() for p in model.parameters()) == wanted
        assert isinstance(model, Detector)


def test_attention_equals_torchs() -> None:
    own, wanted = Attention(12, num_heads=3, dropout=0.0), torch.nn.MultiheadAttention(12, 3, batch_first=True)
    wanted.load_state_dict(
        {
            "in_proj_weight": own.project.weight, "in_proj_bias": own.project.bias,
            "out_proj.weight": own.out.weight, "out_proj.bias": own.out.bias,
        }
    )  # fmt: skip
    query, key, value = torch.randn(2, 5, 12), torch.randn(2, 7, 12), torch.randn(2, 7, 12)
    blocked = torch.rand(2, 5, 7) > 0.6
    blocked[..., 0] = False
    found = own(query, key, value, blocked)
    same = wanted(query, key, value, attn_mask=blocked.repeat_interleave(3, dim=0), need_weights=False)[0]
    torch.testing.assert_close(found, same, atol=1e-5, rtol=1e-5)


def test_fourier_directions_are_saved() -> None:
    first, second = FourierEmbedding(8), FourierEmbedding(8)
    place = torch.rand(1, 4, 3)
    assert not torch.allclose(first(place), second(place))
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(first(place), second(place))
    angle = 2 * math.pi * place[0, 0] @ first.directions
    torch.testing.assert_close(first(place)[0, 0], torch.cat([angle.sin(), angle.cos()]))


def masked_encoder(radius: float) -> DetrEncoder:
    """Two layers; the first keeps tokens apart, the second lets them look ``radius`` far."""
    return DetrEncoder(
        num_tokens=16, dim=16, radius=0.05, num_neighbors=4, depth=2, num_heads=2, hidden=16, dropout=0.0,
        mask_radii=(1e-3, radius), color=False, voxel_size=0.02,
    ).eval()  # fmt: skip


@pytest.mark.parametrize(("radius", "reaches"), [(0.4, False), (5.0, True)])
def test_masked_tokens_see_only_what_is_in_reach(radius: float, reaches: bool) -> None:
    """A cluster of points at x = 2 changes; tokens at x < 0.3 notice only where the mask lets them look that far."""
    encoder = masked_encoder(radius)
    near, far = torch.rand(1, 40, 3) * 0.3, torch.rand(1, 40, 3) * 0.3 + torch.tensor([2.0, 0, 0])
    squeezed = far.clone()
    squeezed[..., 2] *= 0.5
    color, height = torch.zeros(1, 80, 3), torch.zeros(1, 80)
    coords = [torch.cat([near, each], dim=1) for each in (far, squeezed)]
    # both versions must sample the same near tokens, so that they can be compared
    seeds = [encoder.embed(coord, color, height, color) for coord in coords]
    features = [dict(zip(s.index[0].tolist(), s.feature[0], strict=True)) for s in seeds]
    common = [i for i in features[0] if i in features[1] and i < 40]
    assert common
    changed = any(not torch.allclose(features[0][i], features[1][i], atol=1e-6) for i in common)
    assert changed == reaches


def test_radii_must_fit_the_layers() -> None:
    with pytest.raises(ValueError, match="2 layers need 2 mask radii, got 1"):
        DetrEncoder(num_tokens=8, dim=8, radius=0.1, num_neighbors=4, depth=2, num_heads=2, hidden=8, dropout=0.0,
                    mask_radii=(1.0,), color=False, voxel_size=0.02)  # fmt: skip
    with pytest.raises(ValueError, match="code or paper"):
        detr_masked(mask_radii="half")


def test_matching_has_the_least_cost_of_all() -> None:
    cost, label = torch.randn(2, 2, 5, 3), torch.tensor([[0, 1, 0], [1, -1, -1]])
    truth = match(cost, label)
    for layer in range(2):
        for scene, number in enumerate((3, 1)):
            found = truth[layer, scene]
            assert sorted(found[found >= 0].tolist()) == list(range(number))
            total = sum(float(cost[layer, scene, q, t]) for q, t in enumerate(found.tolist()) if t >= 0)
            pairs = permutations(range(5), number)
            least = min(sum(float(cost[layer, scene, q, t]) for t, q in enumerate(queries)) for queries in pairs)
            assert total == pytest.approx(least, abs=1e-5)


def test_scene_without_boxes_matches_nothing() -> None:
    assert (match(torch.randn(1, 1, 4, 2), torch.tensor([[-1, -1]])) == -1).all()


def random_boxes(batch: DetectionBatch, num_headings: int) -> DetrBoxes:
    boxes = torch.rand(2, 2, 6, 7) * torch.tensor([3.0, 3, 1, 1, 1, 1, 0]) - torch.tensor([1.5, 1.5, 0, 0, 0, 0, 0])
    return DetrBoxes(
        category=torch.randn(2, 2, 6, 3),
        boxes=boxes,
        heading=torch.randn(2, 2, 6, num_headings),
        heading_residual=torch.randn(2, 2, 6, num_headings),
    )


def plain_loss(found: DetrBoxes, batch: DetectionBatch, weights: DetrWeights) -> float:
    """The loss layer by layer, scene by scene, box by box; matched by trying everything."""
    low, high = batch.coord.amin(1), batch.coord.amax(1)
    numbers = (batch.label >= 0).sum(1).tolist()
    K, H = found.category.shape[-1], found.heading.shape[-1]
    total = 0.0
    for layer in range(len(found.boxes)):
        weighted, weight_sum = 0.0, 0.0
        for scene, number in enumerate(numbers):
            extent = high[scene] - low[scene]
            boxes, logits = found.boxes[layer, scene], found.category[layer, scene]
            p = logits.softmax(-1)
            giou = generalized_box_iou(boxes, batch.boxes[scene], oriented=H > 1)
            distance = ((boxes[:, None, :3] - batch.boxes[scene, None, :, :3]) / extent).abs().sum(-1)
            label = batch.label[scene]

            def cost(
                q: int, t: int, p: Tensor = p, giou: Tensor = giou, d: Tensor = distance, c: Tensor = label
            ) -> float:
                value = -weights.match_category * p[q, c[t]] - weights.match_giou * giou[q, t]
                return float(value + weights.match_center * d[q, t] + weights.match_objectness * p[q, K - 1])

            best = min(permutations(range(6), number), key=lambda qs: sum(cost(q, t) for t, q in enumerate(qs)))
            wanted = torch.full((6,), K - 1)
            for t, q in enumerate(best):
                wanted[q] = label[t]
                box = batch.boxes[scene, t]
                total += weights.center * float(distance[q, t]) / sum(numbers)
                total += weights.size * float(((boxes[q, 3:6] - box[3:6]) / extent).abs().sum()) / sum(numbers)
                total += weights.giou * float(1 - giou[q, t]) / sum(numbers)
                part = 2 * math.pi / H
                index = round(float(box[6]) / part) % H
                rest = (float(box[6]) - index * part + math.pi) % (2 * math.pi) - math.pi
                of_heading = F.cross_entropy(found.heading[layer, scene, q], torch.tensor(index))
                residual = torch.tensor(rest / (part / 2))
                of_residual = F.huber_loss(found.heading_residual[layer, scene, q, index], residual)
                total += float(weights.heading * of_heading + weights.heading_residual * of_residual) / sum(numbers)
            for q in range(6):
                w = weights.nothing if wanted[q] == K - 1 else 1.0
                weighted += w * float(F.cross_entropy(logits[q], wanted[q]))
                weight_sum += w
        total += weights.category * weighted / weight_sum
    return total


@pytest.mark.parametrize(("num_headings", "weights"), [(1, AXIS_ALIGNED), (6, ORIENTED)])
def test_loss_equals_the_plain_loop(num_headings: int, weights: DetrWeights) -> None:
    scenes = [boxed_scene(i, num_boxes=n, turned=num_headings > 1) for i, n in enumerate((3, 1))]
    batch = boxed_batch(*scenes, oriented=num_headings > 1)
    found = random_boxes(batch, num_headings)
    loss = detr_losses(found, batch, SceneBounds.around(batch.coord), weights)["loss"]
    assert float(loss) == pytest.approx(plain_loss(found, batch, weights), rel=1e-4)


@pytest.mark.parametrize(("masked", "num_headings"), [(False, 1), (True, 1), (False, 4)])
def test_every_parameter_has_a_gradient(masked: bool, num_headings: int) -> None:
    model = tiny(masked=masked, num_headings=num_headings, weights=AXIS_ALIGNED if num_headings == 1 else ORIENTED)
    batch = boxed_batch(*(boxed_scene(i, turned=num_headings > 1) for i in range(2)), oriented=num_headings > 1)
    losses = model(batch)
    losses["loss"].backward()
    assert all(torch.isfinite(value) for value in losses.values())
    without = [n for n, p in model.named_parameters() if p.grad is None]
    assert without == []


def test_scenes_without_objects_have_a_finite_loss() -> None:
    model = tiny()
    losses = model(boxed_batch(boxed_scene(0, num_boxes=0), boxed_scene(2, num_boxes=0)))
    losses["loss"].backward()
    assert losses["loss"].item() > 0
    assert losses["center"].item() == losses["giou"].item() == 0
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_predictions_stay_near_queries_and_inside_the_scenes_extent() -> None:
    model, batch = tiny(num_headings=4).eval(), boxed_batch(boxed_scene(0), boxed_scene(2))
    found = model.predict(batch)
    seeds = model.encoder.embed(batch.coord, batch.color, batch.height, batch.normal)
    assert (found.boxes[..., :3] - seeds.coord[:, :16]).abs().max() <= 0.5
    extent = batch.coord.amax(1) - batch.coord.amin(1)
    assert (found.boxes[..., 3:6] <= extent.unsqueeze(1)).all()
    assert found.boxes[..., 6].abs().max() <= math.pi + 1e-5
    torch.testing.assert_close(found.probability.sum(-1), found.objectness)


def test_more_queries_than_tokens_are_an_error() -> None:
    model = tiny(masked=True)
    model.num_queries = 65
    with pytest.raises(ValueError, match="65 queries need as many tokens, got 64"):
        model(boxed_batch(boxed_scene(0)))


@pytest.mark.slow
def test_it_learns_a_room_by_heart() -> None:
    batch = boxed_batch(*(boxed_scene(i, num_boxes=4) for i in range(2)))
    model = tiny()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(200):
        optimizer.zero_grad()
        model(batch)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    rules = KeepRules(nms_iou=0.25, min_objectness=0.05, min_points=5)
    found, truth = find_boxes(model, [batch], rules=rules, device=torch.device("cpu"), precision="fp32")
    assert detection_scores(match_boxes(found, truth), truth, threshold=0.25).mean_ap == 100
