"""Tables, files, plots and the page."""
