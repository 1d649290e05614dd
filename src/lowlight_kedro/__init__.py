"""Dark, noisy camera raws restored with a diffusion prior and the camera's own noise."""

__version__ = "0.1.0"
