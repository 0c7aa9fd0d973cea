"""The dense face: a surface that 68 landmarks carry, its fit and its named expressions; numpy only."""
