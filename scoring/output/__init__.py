"""Output of the scorer: tables on the screen, CSV and JSON files, plots and the HTML page."""
