"""Data, model, loss, score and augmentation: one file each."""
