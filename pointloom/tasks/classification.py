"""Object classification: an encoder with a head, trained end to end or with the encoder frozen."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.models import PointM2AEEncoder
from pointloom.models.heads import HEADS
from pointloom.structures import Encoder, Losses, PointBatch, as_module

FREEZE = ("none", "encoder", "official")
CLASS_TOKEN = ("cls_token", "cls_position")


class Classifier(nn.Module):
    """Pool the tokens of all patches and classify.

    Args:
        encoder: An encoder; trained with the head.
        head: ``linear`` or ``mlp3``.
        num_classes: Number of classes.
        label_smoothing: Share of the target mass spread over all classes.
        freeze: What of the encoder is trained. ``none`` freezes nothing; ``encoder`` freezes all of it, batch
            statistics and drop-path included; ``official`` is what the published frozen protocols really do: the class
            token and its position learn, batch statistics drift and drop-path stays on.

    Attributes:
        fast_parameters: Beginnings of the names of what the transfer protocols train with a larger learning rate: the
            head, the class token and its position.

    Raises:
        ValueError: ``freeze`` is none of the three.
    """

    fast_parameters = ("head.", "encoder.cls_token", "encoder.cls_position")

    def __init__(
        self, encoder: Encoder, *, head: str, num_classes: int, label_smoothing: float, freeze: str = "none"
    ) -> None:
        super().__init__()
        if freeze not in FREEZE:
            raise ValueError(f"unknown freeze {freeze!r}; known: {', '.join(FREEZE)}")
        self.encoder = encoder
        self.freeze = freeze
        if isinstance(encoder, PointM2AEEncoder):
            encoder.norms[:-1].requires_grad_(False)  # nobody reads the tokens of the finer scales
        if freeze != "none":
            for name, parameter in as_module(encoder).named_parameters():
                parameter.requires_grad_(freeze == "official" and name in CLASS_TOKEN)
        self.head = HEADS[head](encoder.global_dim, num_classes=num_classes)
        self.label_smoothing = label_smoothing

    def train(self, mode: bool = True) -> "Classifier":
        """Switch between training and test; an encoder that is frozen as a whole stays in test mode."""
        super().train(mode)
        if self.freeze == "encoder":
            as_module(self.encoder).eval()
        return self

    def forward(self, batch: PointBatch) -> Losses:
        """Return the cross-entropy and, for the log, the accuracy on the batch in percent."""
        logits = self.predict(batch)
        loss = F.cross_entropy(logits.float(), batch.label, label_smoothing=self.label_smoothing)
        return {"loss": loss, "train_oa": 100.0 * (logits.argmax(-1) == batch.label).float().mean()}

    def predict(self, batch: PointBatch) -> Float[Tensor, "b c"]:
        """Return logits."""
        return self.head(self.encoder.pool(self.encoder(self.encoder.group(batch.coord))))


@dataclass(frozen=True)
class Accuracy:
    """Overall and mean-class accuracy in percent."""

    oa: float
    macc: float


def accuracy(correct: NDArray[np.floating], label: NDArray[np.integer]) -> Accuracy:
    """Return accuracies from the (share of) correct predictions per object.

    Mean-class accuracy averages over the classes that occur in ``label``.

    Args:
        correct: (t,) 1 where right, 0 where wrong, or the share of right draws.
        label: (t,) true classes.
    """
    per_class = [float(correct[label == each].mean()) for each in np.unique(label)]
    return Accuracy(oa=100.0 * float(correct.mean()), macc=100.0 * float(np.mean(per_class)))


@torch.inference_mode()
def predict_draws(
    classifier: Classifier, draws: Sequence[Iterable[PointBatch]], *, device: torch.device, precision: str
) -> Float[Tensor, "draws t c"]:
    """Return class probabilities of all objects for several draws of their points, on the host."""
    was_training = classifier.training
    classifier.eval()
    result = []
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        for draw in draws:
            result.append(torch.cat([classifier.predict(batch.to(device)).float().softmax(-1) for batch in draw]))
    classifier.train(was_training)
    return torch.stack(result).cpu()


@torch.inference_mode()
def vote_passes(
    classifier: Classifier, passes: Sequence[Sequence[Iterable[PointBatch]]], *, device: torch.device, precision: str
) -> Int[Tensor, "passes t"]:
    """Return what every pass votes for, on the host: the largest of the logits averaged over the draws of a pass.

    Point-MAE's code reports the best of 299 passes, which chooses on the test split; their mean is the honest number.

    Note:
        The official code draws the same positions of the point list for a whole batch; here every cloud has its own.
    """
    was_training = classifier.training
    classifier.eval()
    result = []
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        for draws in passes:
            logits = [torch.cat([classifier.predict(batch.to(device)).float() for batch in draw]) for draw in draws]
            result.append(torch.stack(logits).mean(0).argmax(-1))
    classifier.train(was_training)
    return torch.stack(result).cpu()
