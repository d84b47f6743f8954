"""Side-by-side measurements of Linocut against its peers; one script a claim. See README.md."""
