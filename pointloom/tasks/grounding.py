"""Visual grounding on frozen features: which of a scene's boxes does a sentence mean (MSM, section 4; M3DRef-CLIP)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.ops import contrastive_loss
from pointloom.structures import Losses

NO_OBJECT = -1e4  # score of padding
_ROUNDING = 1e-5  # metres; middle and size of a box do not hit its outermost points exactly


@dataclass(frozen=True)
class SceneObjects:
    """The boxes of some scenes, padded to the largest number.

    Attributes:
        feature: Mean of the point features inside each box.
        center: Middle of each box, metres.
        valid: Which are boxes and not padding.
    """

    feature: Float[Tensor, "s o c"]
    center: Float[Tensor, "s o 3"]
    valid: Bool[Tensor, "s o"]


@dataclass(frozen=True)
class SentenceFeatures:
    """Sentences as a frozen text model sees them.

    Attributes:
        word: One vector per word, padded.
        valid: Which are words and not padding.
        sentence: One vector per sentence.
    """

    word: Float[Tensor, "b w d"]
    valid: Bool[Tensor, "b w"]
    sentence: Float[Tensor, "b d"]


@dataclass(frozen=True)
class Questions:
    """Sentences about scenes.

    Attributes:
        text: The sentences.
        scene: Place of each sentence's scene.
        target: Place of the box that is meant.
        unique: Whether no other box of the scene has its class.
    """

    text: SentenceFeatures
    scene: Int[Tensor, " b"]
    target: Int[Tensor, " b"]
    unique: Bool[Tensor, " b"]

    def take(self, rows: Int[Tensor, " r"]) -> "Questions":
        """Return some of the sentences, in single precision."""
        text = SentenceFeatures(self.text.word[rows].float(), self.text.valid[rows], self.text.sentence[rows])
        return Questions(text, self.scene[rows], self.target[rows], self.unique[rows])


def box_features(
    coord: Float[np.ndarray, "n 3"],
    feature: Float[np.ndarray, "n c"],
    *,
    center: Float[np.ndarray, "o 3"],
    size: Float[np.ndarray, "o 3"],
) -> Float[np.ndarray, "o c"]:
    """Return the mean feature inside axis-aligned boxes, 0 where a box holds no point."""
    found = np.zeros((len(center), feature.shape[1]), dtype=np.float32)
    for i, (middle, half) in enumerate(zip(center, size / 2, strict=True)):
        inside = (np.abs(coord - middle) <= half + _ROUNDING).all(axis=1)
        if inside.any():
            found[i] = feature[inside].mean(axis=0)
    return found


def pad_objects(
    features: Sequence[Float[np.ndarray, "_ c"]], centers: Sequence[Float[np.ndarray, "_ 3"]]
) -> SceneObjects:
    """Put the boxes of scenes side by side."""
    most = max(map(len, features))
    feature = torch.zeros(len(features), most, features[0].shape[1])
    center, valid = torch.zeros(len(features), most, 3), torch.zeros(len(features), most, dtype=torch.bool)
    for row, (value, middle) in enumerate(zip(features, centers, strict=True)):
        feature[row, : len(value)] = torch.from_numpy(value)
        center[row, : len(value)] = torch.from_numpy(middle)
        valid[row, : len(value)] = True
    return SceneObjects(feature, center, valid)


class GroundingHead(nn.Module):
    """Scores every box of a scene for a sentence.

    Boxes look at each other, with the distance of their middles in two of the attention heads, and at the words of
    the sentence; twice (M3DRef-CLIP's head). The loss is the cross entropy over the boxes plus the symmetric
    contrastive loss between meant boxes, as they are before they see a word, and sentences of the batch.

    Note:
        The official code lets boxes look at the padding behind the words too; here they do not.

    Args:
        dim: Channels of the box features.
        text_dim: Channels of words and sentences.
        width: Channels inside.
        layers: Pairs of attention over boxes and over words.
        dropout: Inside the attention blocks.
    """

    def __init__(self, dim: int, *, text_dim: int, width: int = 128, layers: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        self.embed = _mlp(dim, width, width)
        self.word = nn.Sequential(
            nn.Linear(text_dim, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width)
        )  # fmt: skip
        self.sentence = nn.Linear(text_dim, width, bias=False)
        self.over_boxes = nn.ModuleList([_Attention(width, dropout) for _ in range(layers)])
        self.over_words = nn.ModuleList([_Attention(width, dropout) for _ in range(layers)])
        self.score = nn.Sequential(*_mlp(width, width, width), nn.BatchNorm1d(width), nn.PReLU(), nn.Linear(width, 1))
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def embedded(self, objects: SceneObjects) -> Float[Tensor, "b o w"]:
        """Return what every box is by itself."""
        return _on_boxes(self.embed, objects.feature, objects.valid)

    def scores(
        self, box: Float[Tensor, "b o w"], objects: SceneObjects, text: SentenceFeatures
    ) -> Float[Tensor, "b o"]:
        """Return a score per embedded box, very low for padding; ``objects`` are those of each sentence's scene."""
        word = self.word(text.word)
        bias = distance_bias(objects)
        for boxes, words in zip(self.over_boxes, self.over_words, strict=True):
            box = boxes(box, box, bias)
            box = words(box, word, torch.where(text.valid, 0.0, NO_OBJECT)[:, None, None])
        return _on_boxes(self.score, box, objects.valid).squeeze(-1).masked_fill(~objects.valid, NO_OBJECT)

    def forward(self, objects: SceneObjects, questions: Questions) -> Losses:
        """Return ``loss`` and its two parts."""
        box = self.embedded(objects)
        choice = F.cross_entropy(self.scores(box, objects, questions.text), questions.target)
        meant = F.normalize(box[torch.arange(len(box)), questions.target], dim=-1)
        sentence = F.normalize(self.sentence(questions.text.sentence), dim=-1)
        everyone = torch.ones(len(box), dtype=torch.bool, device=box.device)
        contrast = contrastive_loss(meant, sentence, scale=self.log_scale.exp(), present=everyone)
        return {"loss": choice + contrast, "choice": choice, "contrast": contrast}


def distance_bias(objects: SceneObjects) -> Float[Tensor, "b 4 o o"]:
    """Return what is added to the attention between boxes: nearness, minus the distance, and two heads without."""
    distance = torch.cdist(objects.center, objects.center)
    near = 1 / (distance + 0.01)
    near = near.masked_fill(~objects.valid[:, None], 0.0)
    near = near / near.sum(-1, keepdim=True).clamp(min=1e-6)
    heads = torch.stack([near, -distance, 0 * near, 0 * near], dim=1)
    return heads.masked_fill(~objects.valid[:, None, None], NO_OBJECT)


def fit_grounding(
    objects: SceneObjects, questions: Questions, *, epochs: int, lr: float, batch_size: int, seed: int
) -> GroundingHead:
    """Train a head on cached features (AdamW, cosine from the middle of the run on)."""
    torch.manual_seed(seed)
    head = GroundingHead(objects.feature.shape[-1], text_dim=questions.text.sentence.shape[-1])
    optimizer = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=1e-5)
    size = min(batch_size, len(questions.scene))
    steps = epochs * (len(questions.scene) // size)
    half = max(1, steps // 2)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 1.0 if step < half else 0.5 * (1 + math.cos(math.pi * (step - half) / half))
    )
    for _ in range(epochs):
        order = torch.randperm(len(questions.scene))
        for start in range(0, len(order) - size + 1, size):
            batch = questions.take(order[start : start + size])
            optimizer.zero_grad()
            head(_of_scenes(objects, batch.scene), batch)["loss"].backward()
            optimizer.step()
            schedule.step()
    return head.eval()


@torch.inference_mode()
def chosen_boxes(head: GroundingHead, objects: SceneObjects, questions: Questions) -> Int[Tensor, " b"]:
    """Return the box with the highest score for every sentence."""
    found = []
    for rows in torch.arange(len(questions.scene)).split(256):
        batch = questions.take(rows)
        theirs = _of_scenes(objects, batch.scene)
        found.append(head.scores(head.embedded(theirs), theirs, batch.text).argmax(-1))
    return torch.cat(found)


def grounding_accuracy(chosen: Int[Tensor, " b"], questions: Questions) -> dict[str, float | None]:
    """Return the share of right choices in percent: ``unique``, ``multiple``, ``overall``; None without sentences."""
    right = (chosen == questions.target).float()
    groups = {"unique": questions.unique, "multiple": ~questions.unique, "overall": torch.ones_like(questions.unique)}
    return {name: 100 * float(right[rows].mean()) if rows.any() else None for name, rows in groups.items()}


def chance(objects: SceneObjects, questions: Questions) -> float:
    """Return the accuracy in percent of a random choice among the boxes of each sentence's scene."""
    return 100 * float((1 / objects.valid.sum(1)[questions.scene]).mean())


class _Attention(nn.Module):
    """Multi-head attention with a bias per head, added to its input and normalised."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)

    def forward(
        self, box: Float[Tensor, "b o w"], other: Float[Tensor, "b n w"], bias: Float[Tensor, "b #h #o n"]
    ) -> Float[Tensor, "b o w"]:
        def heads(value: Tensor) -> Tensor:
            return value.unflatten(-1, (4, -1)).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(
            heads(self.query(box)), heads(self.key(other)), heads(self.value(other)), attn_mask=bias.to(box.dtype)
        )
        return self.norm(box + self.dropout(self.out(mixed.transpose(1, 2).flatten(-2))))


def _mlp(dim: int, width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, width), nn.BatchNorm1d(width), nn.PReLU(), nn.Linear(width, out))


def _on_boxes(module: nn.Module, value: Float[Tensor, "b o c"], valid: Bool[Tensor, "b o"]) -> Float[Tensor, "b o d"]:
    """Apply a module to boxes alone, so that padding has no part in batch statistics."""
    rows = module(value[valid])
    found = rows.new_zeros(*valid.shape, rows.shape[-1])
    found[valid] = rows
    return found


def _of_scenes(objects: SceneObjects, scene: Int[Tensor, " b"]) -> SceneObjects:
    return SceneObjects(objects.feature[scene], objects.center[scene], objects.valid[scene])
