"""Write glTF files by hand, from the specification, so that the loader is tested against something else than itself."""

import base64
import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

QUAD = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], dtype=np.float32)
QUAD_FACES = np.array([0, 1, 2, 0, 2, 3], dtype=np.uint16)
# in glTF the origin of texture coordinates is the upper left corner of the image
QUAD_UV = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], dtype=np.float32)
COMPONENTS = {"float32": 5126, "uint16": 5123, "uint8": 5121}


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def quad(
    *,
    material: dict[str, Any] | None = None,
    node: dict[str, Any] | None = None,
    positions: np.ndarray = QUAD,
    vertex_color: np.ndarray | None = None,
    images: list[dict[str, Any]] | None = None,
    buffer_uri: str | None = None,
) -> tuple[dict[str, Any], bytes]:
    """Describe a unit quad in the xy plane that faces +z; return the JSON part and the buffer."""
    arrays = {"POSITION": positions, "TEXCOORD_0": QUAD_UV, "indices": QUAD_FACES}
    if vertex_color is not None:
        arrays["COLOR_0"] = vertex_color
    views, accessors, data = [], [], b""
    for array in arrays.values():
        views.append({"buffer": 0, "byteOffset": len(data), "byteLength": array.nbytes})
        kind = "SCALAR" if array.ndim == 1 else f"VEC{array.shape[1]}"
        accessor = {"bufferView": len(views) - 1, "count": len(array), "type": kind}
        accessors.append(accessor | {"componentType": COMPONENTS[str(array.dtype)]})
        data += array.tobytes() + b"\0" * (-array.nbytes % 4)
    index = {name: i for i, name in enumerate(arrays)}
    primitive: dict[str, Any] = {"indices": index.pop("indices"), "attributes": index}
    description: dict[str, Any] = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "scene": 0,
        "nodes": [{"mesh": 0, **(node or {})}],
        "meshes": [{"primitives": [primitive]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(data), **({"uri": buffer_uri} if buffer_uri else {})}],
    }
    if material is not None:
        primitive["material"] = 0
        description["materials"] = [material]
    if images:
        description["images"] = images
        description["textures"] = [{"source": 0}]
    return description, data


def write_gltf(path: Path, description: dict[str, Any], data: bytes) -> Path:
    """Write one .gltf file with the buffer inside, unless the buffer has its own file name."""
    buffer = description["buffers"][0]
    if "uri" in buffer:
        (path.parent / buffer["uri"]).write_bytes(data)
    else:
        buffer["uri"] = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
    path.write_text(json.dumps(description))
    return path


def write_glb(path: Path, description: dict[str, Any], data: bytes) -> Path:
    """Write a binary glTF file."""
    text = json.dumps(description).encode()
    text += b" " * (-len(text) % 4)
    data += b"\0" * (-len(data) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + data
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
    return path


def image_uri(pixels: np.ndarray) -> str:
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()
