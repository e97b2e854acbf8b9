"""Image folders, image decoding and augmentation."""
