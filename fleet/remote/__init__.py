"""Names of actors to handles, and wrappers around ports that measure and trace."""
