"""The page of `board`: a face of the commands. It knows no command itself; `work.py` says what it asks of them."""
