"""Images with boxes and label maps: readers of detection and segmentation data, embedded scenes, batches by size."""
