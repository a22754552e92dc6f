"""`algoperf compare`: techniques, frameworks or batch sizes side by side.

`request` says which runs a comparison has, `measures` what is read from each, `document` joins the
seeds of a row, `agreement` sets two frameworks' curves against each other, `tables` and `plots`
show it, `command` does it all.
"""
