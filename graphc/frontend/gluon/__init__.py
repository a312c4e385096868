"""Networks as Python objects: Blocks, Parameters, losses, training."""
