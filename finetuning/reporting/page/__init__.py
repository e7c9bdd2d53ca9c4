"""The report page of a run and its pictures. `write_page` in `files.py` is the way in."""
