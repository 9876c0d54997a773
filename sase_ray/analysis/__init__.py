"""The numbers of a comparison: verdicts, effects, regrets, how well rankings agree."""
