"""How faces move: pose and shape apart, curves over time, filters."""
