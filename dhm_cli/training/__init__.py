"""The parts of a training run: what is minimised and how, how processes share the work, what the run folder keeps."""
