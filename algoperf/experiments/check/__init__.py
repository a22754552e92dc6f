"""Does a submission honour the contract? A few steps on small data, a verdict for each check."""
