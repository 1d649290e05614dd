"""The camera: what it measures and with which noise. Knows no diffusion and no Kedro."""
