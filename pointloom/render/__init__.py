"""Pictures of shapes without a graphics card: cameras and point splatting in NumPy."""
