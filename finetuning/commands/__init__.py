"""What the program does: one file a command, each with `run(session, arguments)`."""
