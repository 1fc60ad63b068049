"""What the site and the notebooks need beyond Jupyter Book's configuration; no part of dlcore."""
