"""The systems Linocut is measured against, with random weights: their cost does not depend on what they learnt."""
