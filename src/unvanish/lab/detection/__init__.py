"""Detection and segmentation: overlaps, assignment, losses, suppression, mAP."""
