"""Event streams: server-sent events, WebSocket, and their document."""
