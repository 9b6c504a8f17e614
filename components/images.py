"""The images that components run in, by Dockerfile target; a pipeline puts registry and tag around these names."""

from pointloom._version import __version__

DATA = f"pointloom-data:{__version__}"
MULTIMODAL = f"pointloom-multimodal:{__version__}"
TRAIN = f"pointloom-train:{__version__}"
