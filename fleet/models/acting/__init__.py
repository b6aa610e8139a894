"""The act loop of role agents: think, call a tool, observe; bounded, and ended when it goes in circles (pure)."""
