"""Stage `dhm export`: a checkpoint becomes the file that `dhm align` runs."""
