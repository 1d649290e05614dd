"""Kedro pipelines: nodes that unpack options and call the package, and the graphs that join them."""
