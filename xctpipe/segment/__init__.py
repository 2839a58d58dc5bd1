"""From a volume to labels: geometry first, then topology, shape and grey value; plain arrays in and out."""
