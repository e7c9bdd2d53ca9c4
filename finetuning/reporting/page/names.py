"""Names of the files that the end of a run writes for people. This module imports nothing."""

PAGE, CURVES, CONFUSION, ERRORS = "report.html", "curves.png", "confusion.png", "errors.csv"
FILES = (PAGE, CURVES, CONFUSION, ERRORS)


def of_split(name: str, split: str) -> str:
    """Return the name of a file that `evaluate` writes: `report-test.html` for `report.html`."""
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}-{split}{dot}{suffix}"
