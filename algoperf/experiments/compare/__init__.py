"""`algoperf compare`: submissions, learning rates, techniques, frameworks or batch sizes.

`request` plans the runs of a comparison, `measures` reads figures from each, and `document` joins
the trials of a row. `agreement` compares the curves of two frameworks. `tables` and `plots` show
the comparison.
"""
