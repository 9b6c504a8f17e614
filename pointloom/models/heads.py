"""Classification heads on a global feature."""

from torch import nn


def linear_head(dim: int, *, num_classes: int) -> nn.Sequential:
    """LayerNorm, dropout 0.2 and one linear layer: the head that a short schedule can train."""
    return nn.Sequential(nn.LayerNorm(dim), nn.Dropout(0.2), nn.Linear(dim, num_classes))


def mlp3_head(dim: int, *, num_classes: int) -> nn.Sequential:
    """Three layers with batch norm and dropout 0.5 between them: the head of the published protocols."""
    return nn.Sequential(
        nn.Linear(dim, 256),
        nn.BatchNorm1d(256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, 256),
        nn.BatchNorm1d(256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, num_classes),
    )


def mlp_linear_head(dim: int, *, num_classes: int) -> nn.Sequential:
    """One linear layer: the head of the published protocol MLP-Linear (ACT, ReCon, Point-PQAE)."""
    return nn.Sequential(nn.Linear(dim, num_classes))


HEADS = {"linear": linear_head, "mlp3": mlp3_head, "mlp_linear": mlp_linear_head}
