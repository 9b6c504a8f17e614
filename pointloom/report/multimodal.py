"""The sections that need views, captions, teachers or an aligned encoder; a report without them has none of it."""

from typing import Any

from pointloom.report import plain_words, teachers, text_retrieval, text_tables, view_strips
from pointloom.report.inputs import ReportInputs
from pointloom.report.outcomes import BootstrapSettings
from pointloom.report.pictures import Pictures

Content = dict[str, Any]


def multimodal_content(
    inputs: ReportInputs,
    pictures: Pictures,
    *,
    limit: int,
    count: int,
    seed: int,
    bootstrap: BootstrapSettings,
) -> Content | None:
    """Return the multimodal part of the report, None where no multimodal stage has left anything.

    Args:
        inputs: Everything the earlier stages left behind.
        pictures: One per object; further ones go to their album.
        limit: Largest number of objects whose neighbourhoods are compared.
        count: Objects shown with views and captions, and text queries.
        seed: Seed of every choice.
        bootstrap: How intervals are made.
    """
    if not inputs.families and not inputs.align:
        return None
    classification = text_tables.text_classification_rows(inputs, bootstrap=bootstrap)
    return {
        "classification": classification,
        "recall": text_tables.recall_rows(inputs),
        "words": plain_words.teacher_sentences(inputs.families, classification),
        "queries": text_retrieval.text_query_rows(inputs, pictures, count=count, seed=seed),
        "teachers": teachers.similarity_blocks(inputs, limit=limit, seed=seed),
        "views": view_strips.view_blocks(inputs, pictures.album, count=count, seed=seed),
    }
