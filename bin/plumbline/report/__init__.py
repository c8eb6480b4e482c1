"""The report: sections for MultiQC (custom content) and a summary in plain words, drawn from SUMMARISE's folder alone."""
