"""Tables in Markdown, as all benchmarks print them; benchmarks/reproduce.py puts them into the documents."""

import pandas as pd


def row(*cells: object) -> None:
    """Print a line of a table."""
    print(f"| {' | '.join(str(cell) for cell in cells)} |", flush=True)


def head(*names: str) -> None:
    """Print the names of the columns and the rule below them; an empty line before, which ends any table above."""
    print()
    row(*names)
    print(f"|{'---|' * len(names)}", flush=True)


def show(frame: pd.DataFrame, digits: int = 3) -> None:
    """Print a frame: its named index as first columns, numbers with at most `digits` decimals, empty cells where there is none."""
    flat = frame if frame.index.names == [None] else frame.reset_index()
    head(*(str(name) for name in flat.columns))
    for cells in flat.itertuples(index=False):
        row(*(_told(cell, digits) for cell in cells))


def _told(cell: object, digits: int) -> str:
    if not isinstance(cell, float):  # NumPy's double is one
        return str(cell)
    return f"{cell:.{digits}f}" if cell == cell else ""
