"""Work sessions of engineers as the log of a story tells them: their steps, and what people did to them."""
