"""What networks are trained on: the HDF5 store of labelled faces, batches and augmentation."""
