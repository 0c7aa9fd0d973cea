"""From photos to landmarks (`dhm align`); importing it loads no torch."""
