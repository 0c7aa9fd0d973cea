"""Crops, augmentation and the HDF5 store of labelled faces."""
