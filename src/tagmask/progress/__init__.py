"""Who is told what a run does: terminal, log file, nobody."""
