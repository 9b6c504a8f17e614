"""Pictures of shapes without a screen: cameras, meshes by OpenGL or rays, clouds as discs."""
