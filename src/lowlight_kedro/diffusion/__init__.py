"""The prior: a denoiser of any noise level, its training and its samplers. Knows no camera and no Kedro.

Throughout, `sigma` is the diffusion noise level, broadcastable to the image `x` (B, C, H, W).
"""
