"""Many runs: sweeps, comparisons, paired differences, scores measured anew."""
