"""Work sessions of engineers as people read them: where each stands, and each turn afterwards."""
