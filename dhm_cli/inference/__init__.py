"""An image to its faces: detector, network, passes, tracks; importing it loads no torch."""
