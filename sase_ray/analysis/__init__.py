"""Numbers of a comparison: verdicts, effects, regrets, and how well rankings agree."""
