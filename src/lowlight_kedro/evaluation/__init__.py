"""How close a restoration is to the long exposure: metrics and pictures."""
