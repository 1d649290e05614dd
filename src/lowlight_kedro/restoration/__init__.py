"""Where camera and prior meet: the measurement, and the guidance that turns a prior into a posterior."""
