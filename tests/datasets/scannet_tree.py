"""A tiny ScanNet in its official layout: a floor with a chair and a picture on a wall."""

import json
from pathlib import Path

import numpy as np

TABLE = (
    "id\traw_category\tcategory\tcount\tnyu40id\n1\twall\twall\t9\t1\n3\tfloor\tfloor\t9\t2\n2\tchair\tchair\t9\t5\n"
    "10\toffice chair\toffice chair\t9\t5\n15\tpicture\tpicture\t9\t11\n41\tceiling\tceiling\t9\t22\n"
)
SQUARES = {"floor": (0, 0, 0), "wall": (0, 0, 1), "office chair": (1, 1, 0), "picture": (2, 0, 1), "ceiling": (0, 0, 2)}
"""What there is, and where the corner of its square of a metre (or of its cube, the chair) is."""
ALIGNMENT = "0 -1 0 5  1 0 0 6  0 0 1 -1  0 0 0 1"


def full_table() -> str:
    """The columns that matter, with an invented word for every other of the 200 ids."""
    from pointloom.datasets.scannet_labels import IDS_200

    known = {int(line.split("\t")[0]) for line in TABLE.splitlines()[1:]}
    return TABLE + "".join(f"{i}\tword{i}\tname{i}\t1\t40\n" for i in IDS_200 if i not in known)


def write_tree(root: Path, scans: dict[str, str]) -> Path:
    """Write scans, name to split; the official name of the file that lists it."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "scannetv2-labels.combined.tsv").write_text(full_table())
    for split in ("train", "val", "test"):
        (root / f"scannetv2_{split}.txt").write_text("".join(f"{n}\n" for n, s in scans.items() if s == split))
    for name, split in scans.items():
        write_scan(root / ("scans_test" if split == "test" else "scans") / name, labelled=split != "test")
    return root


def write_scan(folder: Path, *, labelled: bool = True) -> None:
    folder.mkdir(parents=True)
    coord, faces, segments, groups = [], [], [], []
    for i, (word, corner) in enumerate(SQUARES.items()):
        begin = len(coord)
        offsets = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)]
        if word == "office chair":
            offsets += [(0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)]
        coord += [tuple(np.add(corner, offset)) for offset in offsets]
        faces += [(begin, begin + 1, begin + 2), (begin, begin + 2, begin + 3)]
        segments += [10 * i] * (len(offsets) // 2) + [10 * i + 1] * (len(offsets) - len(offsets) // 2)
        groups.append({"id": i, "objectId": i, "label": word, "segments": [10 * i, 10 * i + 1]})
    name = folder.name
    rows = [f"{x} {y} {z} {i} {i + 1} {i + 2} 255" for i, (x, y, z) in enumerate(coord)]
    head = ["ply", "format ascii 1.0", f"element vertex {len(rows)}", *(f"property float {axis}" for axis in "xyz"),
            *(f"property uchar {c}" for c in ("red", "green", "blue", "alpha")), f"element face {len(faces)}",
            "property list uchar int vertex_indices", "end_header"]  # fmt: skip
    text = [*head, *rows, *(f"3 {a} {b} {c}" for a, b, c in faces)]
    (folder / f"{name}_vh_clean_2.ply").write_text("\n".join(text) + "\n")
    (folder / f"{name}.txt").write_text("numDepthFrames = 7\n" + (f"axisAlignment = {ALIGNMENT}\n" if labelled else ""))
    if labelled:
        (folder / f"{name}_vh_clean_2.0.010000.segs.json").write_text(json.dumps({"segIndices": segments}))
        (folder / f"{name}.aggregation.json").write_text(json.dumps({"segGroups": groups}))
