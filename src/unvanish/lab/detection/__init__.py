"""What detection and segmentation share: overlaps, the assignment, the losses, suppression, the mAP."""
