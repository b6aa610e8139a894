"""Tools: what runs, on which tree, under which limits, and what repeating it may do."""
