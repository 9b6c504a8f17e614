"""What the teachers at hand can show and what they cannot, in sentences for a reader who was not there."""

from typing import Any

from pointloom.report.families import Families

EMBEDDED = ("bag of words", " descriptor")
"""What the names of the embedded stand-ins contain; all other teachers have weights that were trained elsewhere."""

Row = dict[str, Any]

BAG_OF_WORDS = (
    "The text teacher is a bag of words, not a language model. It shows that the chain works and how much words about "
    "shapes teach an encoder. It cannot show understanding: two sentences are alike as far as they share words, "
    "“sofa” and “couch” have nothing in common, and a word that no training caption holds has no meaning to it."
)
DESCRIPTORS = (
    "The image teachers ({names}) are hand-crafted descriptors of edges, shading and colour, computed from the views. "
    "They carry what the views show of geometry and paint and no knowledge from other pictures, so what an encoder "
    "gains from them is no measure of what it would gain from CLIP or DINOv2."
)
HELD_OUT_BAG = (
    "Held-out classes can only be recognised here through words they share with other classes' captions (“round”, "
    "“legs”): near chance is the expected outcome, and above chance would not be language either."
)
SEEN = (
    "Classification by text of seen classes is no zero-shot result: the class names occur in training captions, which "
    "makes captions a kind of label. Zero-shot is said of held-out classes only."
)
NO_CATEGORY = "The captions were made without category words (category: false): class names are in no training caption."
CATEGORY = "The captions may hold category words (category: true); encoders that were aligned with them are tagged so."
NUMBERS = (
    "Numbers with embedded teachers compare encoders with each other on this data; they are not comparable with "
    "published numbers, whose teachers have seen hundreds of millions of pictures and sentences."
)


def teacher_sentences(families: Families, classification: list[Row]) -> list[str]:
    """Return the sentences for the teachers and tables of a report; none without cached features.

    Args:
        families: What the multimodal stages left behind.
        classification: Rows of ``text_classification_rows``.
    """
    teachers = {teacher.name: teacher for found in families.features.values() for teacher in found.info.teachers}
    embedded = [teacher for teacher in teachers.values() if any(mark in teacher.model for mark in EMBEDDED)]
    bag = any(teacher.modality == "text" for teacher in embedded)
    images = [teacher.name for teacher in embedded if teacher.modality == "image"]
    sets = {row["classes"] for row in classification}
    sentences = [BAG_OF_WORDS] if bag else []
    if images:
        sentences.append(DESCRIPTORS.format(names=", ".join(images)))
    switches = {found.info.category for found in families.features.values()}
    sentences += [CATEGORY] if True in switches else []
    sentences += [NO_CATEGORY] if switches == {False} else []
    sentences += [SEEN] if "seen" in sets and True in switches else []
    sentences += [HELD_OUT_BAG] if bag and "held_out" in sets else []
    return sentences + ([NUMBERS] if embedded else [])
