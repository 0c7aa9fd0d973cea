"""Settings of networks and trainings: each declared once, with type, range, default and sentence."""
