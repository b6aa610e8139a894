"""Other servers, as the fleet asks them: whom it may ask, whom it trusts, and how much of an answer it takes."""
