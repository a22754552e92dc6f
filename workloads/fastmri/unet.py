"""What the U-Nets of both frameworks agree in."""

# Added to a norm's variance: fastMRI's of the instance norm, flax's default of the layer norm.
EPSILONS = {"instance": 1e-5, "layer": 1e-6}
