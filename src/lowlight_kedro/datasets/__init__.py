"""Kedro datasets: the only code that opens files."""
