"""Parameters of the report's ablation table; `pointloom ablate` writes them."""

from typing import Literal

from pydantic import Field

from pointloom.stages.params import StageParams

Measure = Literal["svm", "finetune", "linear", "nearest"]
"""What a table measures: accuracy on objects by a linear SVM or fine-tuned, mean IoU on scenes by the probes."""


class AblationRowParams(StageParams):
    """A row of the paper's table and the results that belong to it."""

    cells: list[str] = Field(description="what the paper's row says, one text per column")
    published: list[float] = Field(description="one value per benchmark, or none")
    not_built: str | None = Field(description="why there is no such row here; null where there is one")
    entries: list[str] = Field(description="entries of probe and finetune, one per seed")
    is_full: bool = Field(description="the full method, which differences are taken against")


class AblationParams(StageParams):
    """An ablation table of a paper beside its results here."""

    name: str = Field(description="name of the table for `pointloom ablate`")
    title: str = Field(description="what the table is about")
    source: str = Field(description="paper and table")
    protocol: str = Field(description="how the published values were measured")
    benchmarks: list[str] = Field(description="columns of published values")
    measured: list[Measure] = Field(min_length=1, description="columns of our values")
    columns: list[str] = Field(min_length=1, description="headings of the cells")
    notes: list[str] = Field(description="what else differs from the paper")
    rows: list[AblationRowParams] = Field(min_length=2, description="in the order of the paper")
    untrained: str = Field(description="entry of probe and finetune with random weights")
