"""Kedro pipelines: nodes that unpack options and call the package, and the graphs that join them. One that fits into a file is a file."""
