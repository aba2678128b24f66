"""Views of scenes with their cameras, meshes, and volumes: readers, and synthetic ones."""
