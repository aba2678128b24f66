"""Image files and folders, colours, and the geometry of pixels, boxes and masks."""
