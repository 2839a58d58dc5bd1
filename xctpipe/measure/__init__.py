"""From labelled regions to numbers with units and uncertainty; plain arrays in and out."""
