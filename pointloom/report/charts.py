"""Plotly figures as JSON; the page draws each one when it scrolls into view."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from pointloom.report.inputs import Arrays

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")  # Okabe and Ito
SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "star", "hexagon")
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif'
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")

Row = dict[str, Any]


def color_of(position: int) -> str:
    """Return the colour-blind safe colour of the n-th series."""
    return COLORS[position % len(COLORS)]


def accuracy_chart(rows: Sequence[Row], runs: dict[str, list[float]]) -> str:
    """Draw every seed as a dot, the mean as a bar, and one standard error of the test set around the mean."""
    figure = go.Figure()
    for position, row in enumerate(rows):
        seeds, color = runs[row["name"]], color_of(position)
        figure.add_scatter(
            x=[row["oa"]["mean"]],
            y=[row["name"]],
            error_x={"type": "data", "array": [row["standard_error"]], "color": color, "thickness": 1.5, "width": 5},
            marker={"symbol": "line-ns", "size": 20, "line": {"width": 3, "color": color}},
            mode="markers",
            hovertemplate="mean %{x:.1f} %<extra>" + row["name"] + "</extra>",
        )
        figure.add_scatter(
            x=seeds,
            y=[row["name"]] * len(seeds),
            mode="markers",
            marker={"color": color, "size": 8, "opacity": 0.65},
            hovertemplate="seed: %{x:.1f} %<extra>" + row["name"] + "</extra>",
        )
    figure.update_xaxes(title="test accuracy, %")
    figure.update_yaxes(type="category", autorange="reversed")
    return _finish(figure, height=110 + 46 * len(rows), legend=False)


def low_label_chart(rows: Sequence[Row], order: Sequence[str]) -> str:
    """Draw accuracy against the share of training labels, mean and standard deviation over seeds.

    Args:
        rows: One per share and model.
        order: All models; a model's place in it decides its colour in every chart.
    """
    figure = go.Figure()
    for name in dict.fromkeys(row["name"] for row in rows):
        position = order.index(name)
        own = [row for row in rows if row["name"] == name and row["oa"]]
        figure.add_scatter(
            x=[100 * row["fraction"] for row in own],
            y=[row["oa"]["mean"] for row in own],
            error_y={"type": "data", "array": [row["oa"]["std"] or 0 for row in own], "thickness": 1.5},
            mode="lines+markers",
            name=name,
            line={"color": color_of(position), "dash": DASHES[position % len(DASHES)]},
            marker={"symbol": SYMBOLS[position % len(SYMBOLS)], "size": 9},
        )
    ticks = sorted({100 * row["fraction"] for row in rows})
    figure.update_xaxes(title="training labels used, %", type="log", tickvals=ticks, ticktext=[f"{t:g}" for t in ticks])
    figure.update_yaxes(title="test accuracy, %")
    return _finish(figure, height=400)


def loss_chart(curves: dict[str, Arrays], *, column: str = "loss", log: bool = False) -> str:
    """Draw a column of several curves against the epoch, averaged over seeds at the largest fraction."""
    figure = go.Figure()
    for position, (name, arrays) in enumerate(curves.items()):
        epoch, value = _mean_curve(arrays, column)
        figure.add_scatter(
            x=epoch,
            y=value,
            mode="lines" if len(epoch) > 2 else "lines+markers",
            name=name,
            line={"color": color_of(position), "dash": DASHES[position % len(DASHES)], "width": 2},
        )
    longest = max(arrays["epoch"].max() for arrays in curves.values())
    figure.update_xaxes(title="epoch", dtick=1 if longest <= 10 else None)
    figure.update_yaxes(title=column.replace("_", " "), type="log" if log else "linear")
    if log:
        values = np.concatenate([arrays[column] for arrays in curves.values()])
        ticks = log_ticks(values)
        figure.update_yaxes(tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])
    return _finish(figure, height=340)


def confusion_chart(counts: list[list[float]], classes: Sequence[str]) -> str:
    """Draw a confusion matrix, every row divided by its sum."""
    matrix = np.asarray(counts, dtype=np.float64)
    share = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1e-9)
    figure = go.Figure(
        go.Heatmap(
            z=share.round(1),
            x=list(classes),
            y=list(classes),
            customdata=matrix.round(2),
            colorscale=[[0, "#ffffff"], [0.05, "#e3eef8"], [0.35, "#7fb3d9"], [1, "#08306b"]],
            zmin=0,
            zmax=100,
            xgap=0.5,
            ygap=0.5,
            colorbar={"thickness": 8, "len": 0.5, "ticksuffix": " %", "tickvals": [0, 50, 100], "outlinewidth": 0},
            hovertemplate="true %{y}<br>predicted %{x}<br>%{z:.0f} % (%{customdata:.1f} objects)<extra></extra>",
        )
    )
    size = 7 if len(classes) > 40 else 9 if len(classes) > 20 else 11
    figure.update_xaxes(tickangle=-90, tickfont_size=size, dtick=1, showgrid=False)
    figure.update_yaxes(autorange="reversed", tickfont_size=size, dtick=1, showgrid=False)
    return _finish(figure, height=round(min(900, 150 + max(230, 8.6 * len(classes)))), legend=False)


def embedding_chart(position: np.ndarray, titles: Sequence[str], hover: Sequence[str]) -> str:
    """Draw a two-dimensional embedding, one colour and symbol per class; the legend switches classes."""
    figure = go.Figure()
    labels = np.asarray(titles)
    for number, title in enumerate(sorted(set(titles))):
        member = labels == title
        figure.add_scatter(
            x=position[member, 0].round(2),
            y=position[member, 1].round(2),
            mode="markers",
            name=title,
            text=[hover[index] for index in np.flatnonzero(member).tolist()],
            hovertemplate="%{text}<extra></extra>",
            marker={
                "color": color_of(number),
                "symbol": SYMBOLS[(number // len(COLORS)) % len(SYMBOLS)],
                "size": 7,
                "line": {"width": 0.5, "color": "white"},
            },
        )
    for axes in (figure.update_xaxes, figure.update_yaxes):
        axes(visible=False)
    return _finish(figure, height=560, legend=len(set(titles)) > 1)


def log_ticks(values: np.ndarray) -> list[float]:
    """Return 1, 2 and 5 times powers of ten; where less than two lie between the values, a few numbers that do."""
    positive = values[np.isfinite(values) & (values > 0)]
    if not len(positive):
        return []
    low, high = float(positive.min()), float(positive.max())
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    inside = [tick for tick in ticks if low <= tick <= high]
    return ticks if len(inside) > 1 else [float(f"{value:.3g}") for value in np.linspace(low, high, 3)]


def _mean_curve(arrays: Arrays, column: str) -> tuple[np.ndarray, np.ndarray]:
    epoch, value = arrays["epoch"], arrays[column]
    if "fraction" in arrays:
        full = arrays["fraction"] == arrays["fraction"].max()
        epoch, value = epoch[full], value[full]
    steps = np.unique(epoch)
    return steps, np.array([value[epoch == step].mean() for step in steps])


def _finish(figure: go.Figure, *, height: int, legend: bool = True) -> str:
    axis = {"showline": True, "linecolor": "#999", "gridcolor": "#e8e8e8", "zeroline": False, "automargin": True}
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 50, "r": 15, "t": 30, "b": 50},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "#b0b6bf", "activecolor": "#1d2129"},
        font={"family": FONT, "size": 13, "color": "#1d2129"},
        showlegend=legend,
        legend={"font": {"size": 11}, "itemsizing": "constant"},
        hoverlabel={"namelength": -1},
        plot_bgcolor="#fff",
        paper_bgcolor="rgba(0,0,0,0)",
    )
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return str(figure.to_json())
