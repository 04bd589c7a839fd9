"""Studies: what pictures, photographs and outlines say of a network's units, or of a generator."""
